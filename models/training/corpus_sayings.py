# ruff: noqa: E501, SIM905 - the lists keep one group to a line
# fmt: off
"""Public-domain proverbs by theme, comments that suit each theme, and the well-known lines that the lessons use as prompts."""

PROVERBS: dict[str, tuple[str, ...]] = {
    "patience": (
        "Rome was not built in a day.", "Slow and steady wins the race.", "Good things come to those who wait.", "A watched pot never boils.",
        "Patience is a virtue.", "Little strokes fell great oaks.", "Constant dripping wears away the stone.", "Great oaks from little acorns grow.",
        "All in good time.", "Practice makes perfect.", "If at first you don't succeed, try, try again.", "Where there is a will there is a way.",
        "A journey of a thousand miles begins with a single step.", "Many a little makes a mickle.", "Drop by drop the bucket fills.",
        "Everything comes to him who waits.", "You must learn to walk before you can run.", "Step by step one climbs the mountain.",
    ),
    "haste": (
        "Haste makes waste.", "More haste, less speed.", "Look before you leap.", "Measure twice, cut once.", "Fools rush in where angels fear to tread.",
        "Marry in haste, repent at leisure.", "Think before you speak.", "Don't count your chickens before they are hatched.",
        "Don't put the cart before the horse.", "Don't cross the bridge until you come to it.", "Second thoughts are best.", "Easy does it.",
        "First catch your hare, then cook it.", "Hasty climbers have sudden falls.",
    ),
    "time": (
        "Time flies.", "Time and tide wait for no man.", "Better late than never.", "The early bird catches the worm.", "A stitch in time saves nine.",
        "Strike while the iron is hot.", "Make hay while the sun shines.", "Never put off until tomorrow what you can do today.",
        "Early to bed and early to rise makes a man healthy, wealthy and wise.", "Tomorrow is another day.", "Time heals all wounds.",
        "There is no time like the present.", "An hour in the morning is worth two in the evening.", "Lost time is never found again.",
        "Procrastination is the thief of time.", "Time will tell.", "Never is a long time.",
    ),
    "friendship": (
        "A friend in need is a friend indeed.", "Two heads are better than one.", "Many hands make light work.", "Birds of a feather flock together.",
        "A trouble shared is a trouble halved.", "Good company on the road is the shortest cut.", "United we stand, divided we fall.",
        "One good turn deserves another.", "Love your neighbour as yourself.", "Do as you would be done by.", "Charity begins at home.",
        "A burden shared is half a burden.", "Four eyes see more than two.", "Old friends and old wine are best.", "Love makes the world go round.",
        "It takes two to make a quarrel.", "The more the merrier.", "Absence makes the heart grow fonder.",
    ),
    "honesty": (
        "Honesty is the best policy.", "Actions speak louder than words.", "A promise is a promise.", "Practise what you preach.",
        "Truth will out.", "All that glitters is not gold.", "Fine words butter no parsnips.", "Easier said than done.", "Murder will out.",
        "A clear conscience is a soft pillow.", "Don't judge a book by its cover.", "Handsome is as handsome does.", "Well done is better than well said.",
        "Fine feathers make fine birds.", "Appearances are deceptive.", "A liar is not believed when he speaks the truth.", "Truth is stranger than fiction.",
        "Half a truth is often a whole lie.", "Give credit where credit is due.",
    ),
    "caution": (
        "Better safe than sorry.", "Once bitten, twice shy.", "Curiosity killed the cat.", "Let sleeping dogs lie.", "Still waters run deep.",
        "Don't put all your eggs in one basket.", "A bird in the hand is worth two in the bush.", "An ounce of prevention is worth a pound of cure.",
        "If you play with fire, you will get burned.", "Walls have ears.", "Discretion is the better part of valour.", "Forewarned is forearmed.",
        "When the cat is away, the mice will play.", "There is no smoke without fire.", "He who sups with the devil should have a long spoon.",
        "Pride comes before a fall.", "A chain is only as strong as its weakest link.", "Don't bite the hand that feeds you.",
        "People who live in glass houses should not throw stones.", "Don't change horses in midstream.",
    ),
    "courage": (
        "Fortune favours the bold.", "Nothing ventured, nothing gained.", "Faint heart never won fair lady.", "Where there is life there is hope.",
        "Every cloud has a silver lining.", "It is always darkest before the dawn.", "When the going gets tough, the tough get going.",
        "Hope springs eternal.", "Necessity is the mother of invention.", "Better to light a candle than to curse the darkness.",
        "After a storm comes a calm.", "Laugh and the world laughs with you.", "Never say die.", "April showers bring May flowers.",
        "Fall seven times, stand up eight.", "The pen is mightier than the sword.", "Faith can move mountains.", "Hope for the best and prepare for the worst.",
    ),
    "work": (
        "No pain, no gain.", "As you sow, so shall you reap.", "You reap what you sow.", "Too many cooks spoil the broth.", "A bad workman blames his tools.",
        "If a job is worth doing, it is worth doing well.", "The devil finds work for idle hands.", "All work and no play makes Jack a dull boy.",
        "Jack of all trades, master of none.", "A rolling stone gathers no moss.", "Well begun is half done.",
        "He that would eat the fruit must climb the tree.", "Work before play.", "God helps those who help themselves.", "The labourer is worthy of his hire.",
        "You can't make an omelette without breaking eggs.", "No bees, no honey.", "Business before pleasure.", "A new broom sweeps clean.",
        "Diligence is the mother of good luck.", "Every little helps.",
    ),
    "learning": (
        "Live and learn.", "Knowledge is power.", "Experience is the best teacher.", "We learn by our mistakes.", "To err is human, to forgive divine.",
        "It is never too late to learn.", "You can't teach an old dog new tricks.", "A little learning is a dangerous thing.", "Ask and you shall receive.",
        "There are two sides to every question.", "Seeing is believing.", "The proof of the pudding is in the eating.", "Two wrongs do not make a right.",
        "He who asks is a fool for a minute, but he who does not ask is a fool forever.", "Silence is golden.", "Empty vessels make the most noise.",
        "There is nothing new under the sun.", "Speech is silver, silence is golden.", "It is easy to be wise after the event.",
    ),
    "money": (
        "A penny saved is a penny earned.", "Money does not grow on trees.", "Money cannot buy happiness.", "The best things in life are free.",
        "Waste not, want not.", "Take care of the pence and the pounds will take care of themselves.", "A fool and his money are soon parted.",
        "Neither a borrower nor a lender be.", "Enough is as good as a feast.", "Health is better than wealth.", "Easy come, easy go.",
        "Cut your coat according to your cloth.", "Beggars can't be choosers.", "Never look a gift horse in the mouth.", "He who pays the piper calls the tune.",
        "You cannot have your cake and eat it.", "Penny wise and pound foolish.", "Half a loaf is better than none.", "Contentment is better than riches.",
    ),
    "home": (
        "There is no place like home.", "East or west, home is best.", "Home is where the heart is.", "When in Rome, do as the Romans do.",
        "The apple does not fall far from the tree.", "Like father, like son.", "Blood is thicker than water.", "Good fences make good neighbours.",
        "An Englishman's home is his castle.", "Every bird likes its own nest best.", "As you make your bed, so you must lie in it.",
        "A house divided against itself cannot stand.", "The grass is always greener on the other side of the fence.", "Children should be seen and not heard.",
        "All roads lead to Rome.", "Distance lends enchantment to the view.", "Dry bread at home is better than roast meat abroad.",
    ),
    "luck": (
        "What goes around comes around.", "It never rains but it pours.", "Every dog has his day.", "Lightning never strikes twice in the same place.",
        "Third time lucky.", "All is well that ends well.", "No news is good news.", "It is no use crying over spilt milk.",
        "What cannot be cured must be endured.", "Misfortunes never come singly.", "One man's meat is another man's poison.", "Accidents will happen.",
        "One swallow does not make a summer.", "There are plenty more fish in the sea.", "You win some, you lose some.", "It is an ill wind that blows nobody any good.",
        "What will be, will be.", "One man's trash is another man's treasure.", "You never miss the water till the well runs dry.",
    ),
    "health": (
        "An apple a day keeps the doctor away.", "Laughter is the best medicine.", "Hunger is the best sauce.", "You are what you eat.",
        "Prevention is better than cure.", "After dinner rest a while, after supper walk a mile.", "A sound mind in a sound body.", "Variety is the spice of life.",
        "Cleanliness is next to godliness.", "Feed a cold and starve a fever.", "Moderation in all things.",
        "Eat to live, do not live to eat.", "A change is as good as a rest.", "The way to a man's heart is through his stomach.",
    ),
}

THEME_COMMENTS: dict[str, tuple[str, ...]] = {
    "patience": ("Whoever keeps going will arrive in the end.", "{name} planted a tree and did not mind the waiting.", "Big things are made of many small steps.", "{name} tried {number} times, and then it worked."),
    "haste": ("{name} did not listen and had to do everything twice.", "It is better to think first and to act afterwards.", "Those who hurry often forget the most important thing.", "So {name} took a deep breath and started again, slowly."),
    "time": ("{name} set the alarm clock and got up at once.", "So {name} did not wait until {weekday}.", "What is done today need not be done tomorrow.", "Time is like a river: it never flows back."),
    "friendship": ("{name} and {friend} knew that very well.", "When {name} was in trouble, {friend} came at once.", "Together everything is easier.", "{name} helped {friend}, and the next day {friend} helped {name}."),
    "honesty": ("{name} told the truth, although it was not easy.", "People should be judged by what they do.", "So {name} kept the promise, and {friend} was {glad}.", "It is what is inside that matters."),
    "caution": ("{name} thought about it and was careful.", "It is wise to think of what might happen.", "{friend} had warned {name}, but {name} would not listen.", "A little care saves a lot of trouble."),
    "courage": ("{name} did not give up, and in the end it turned out well.", "Even on a dark day there is a little light.", "So {name} took heart and tried again.", "{friend} said it to {name} when everything seemed lost."),
    "work": ("{name} rolled up {his} sleeves and began.", "Whoever works hard may rest with a quiet mind.", "In the evening {name} was tired but {glad}.", "{friend} looked at the finished work and nodded."),
    "learning": ("{name} made a mistake and learned from it.", "Nobody knows everything, and everybody can learn something.", "{name} asked {friend}, and {friend} was happy to explain it.", "That is why {name} reads a little every day."),
    "money": ("{name} put the coin into a jar and was content.", "It is not gold that makes us happy.", "{name} bought only what was needed.", "{friend} had little, but shared it with {name}."),
    "home": ("After a long journey {name} was happy to open {his} own door.", "{name} had seen many places, but liked this one best.", "A family holds together.", "\"Here I belong,\" said {name}."),
    "luck": ("{name} laughed and took it lightly.", "Sometimes things go well and sometimes they do not.", "So {name} did not complain.", "\"Who knows what it is good for?\" said {friend} to {name}."),
    "health": ("So {name} ate {fruit} and went for a walk.", "{name} is never ill and has red cheeks.", "The doctor said so, and the doctor was right.", "{friend} told {name} to rest and to drink {drink}."),
}

GENERAL_COMMENTS = (
    "This old proverb is about {theme}.", "{name}'s {relative} used to say this.", "People have said so for hundreds of years.",
    "{name} heard it from {elder}.", "That is an old saying, and it is still true.", "\"How true!\" said {name}.",
    "{name} the {kind} wrote it on the wall above the door.", "{name} often thought of this saying.", "So says an old proverb.",
    "\"I shall remember that,\" said {name} to {friend}.", "{friend} the {fkind} says it every {weekday}.", "It is one of the first proverbs that children learn.",
)

QUOTED_PROVERBS = (
    "{name} the {kind} had a favourite saying: \"{proverb}\"", "{elder} said to {name}: \"{proverb}\"", "As the old proverb says: \"{proverb}\"",
    "My {relative} always says: \"{proverb}\"", "There is an old proverb: \"{proverb}\"",
)

FAMOUS_LINES: dict[str, tuple[str, ...]] = {
    "The quick brown fox jumped over the lazy dog.": (
        "The dog opened one eye, yawned and went back to sleep.",
        "The dog did not even notice. It was much too warm to bark.",
        "\"Why are you in such a hurry?\" asked the dog. \"Because I am quick,\" said the fox, \"and you are lazy.\"",
        "Then the fox ran into the forest, and the dog dreamed of bones.",
        "The dog barked once, turned around and fell asleep again in the sun.",
        "\"Tomorrow I will jump over you,\" said the dog. But the next day it was still asleep.",
        "This sentence contains every letter of the alphabet except the letter s.",
        "The fox was brown and quick, and the dog was old and sleepy, but they were good friends.",
        "A hen saw it and laughed so much that she laid two eggs.",
        "{name} the {kind} saw it from the window and laughed. \"Run, little fox!\" cried {name}.",
        "In the evening the fox came back and jumped over the dog once more.",
        "The cat on the wall clapped her paws. \"Once more!\" she said. So the fox jumped again.",
    ),
    "The quick brown fox jumps over the lazy dog.": (
        "This sentence contains every letter of the alphabet.", "{name} typed it on an old typewriter to see if all the keys worked.",
        "It is the sentence that everyone uses to try out a new pen.", "The teacher wrote it on the board, and {name} copied it {number} times.",
        "The dog does not mind, because it is fast asleep.", "Every letter from A to Z is in it.",
    ),
    "The rain in Spain falls mainly on the plain.": (
        "In the mountains it is dry, and the goats are thirsty.", "{name} sat under a big umbrella and wrote a song about it.",
        "The farmers on the plain are glad, for the rain makes the wheat grow.", "When the sun comes back, the whole plain is green.",
        "\"Then I will go to the hills,\" said {name}, and packed a bag.", "The storks stand in the wet fields and wait for the sun.",
        "{name} practised the sentence until every word was clear.", "The children say it aloud to learn to speak clearly.",
        "The rain drums on the roofs, and the windmills turn slowly in the wind.", "Afterwards a rainbow stands over the olive trees.",
        "So take an umbrella with you when you go there, {name}!", "The people there look up at the clouds and smile.",
    ),
    "What comes up must come down.": (
        "{name} threw a ball into the air, and a moment later it fell into the grass.", "That is true of balls, of kites and of cats in trees.",
        "The kite rose high above the roofs, and in the evening it came down again.", "The reason for this is gravity, said the teacher.",
        "\"Even the moon?\" asked {name}. \"Not the moon,\" said {friend}.", "So the bear climbed the tree very carefully, because it thought of the way back.",
        "{name} climbed to the top of the hill and rolled all the way down.", "The sun comes up in the morning and goes down in the evening.",
        "\"And what goes down may come up again,\" said {name} and smiled.", "{name} jumped as high as possible, and landed in a puddle.",
        "The bread in the oven rose and rose, and then it sank, and {name} was {sad}.", "Only the stars stay where they are.",
    ),
    "What goes up must come down.": (
        "{name} threw an apple into the air and caught it again.", "That is the law of gravity.", "{name} learned it when {he} let go of the kite.",
        "The swing flies up, and the swing flies down.", "So said {name}, and slid down the hill on a sled.", "The balloon floated over the hills, and at sunset it landed in a field.",
    ),
    "Twinkle, twinkle, little star, how I wonder what you are.": (
        "Up above the world so high, like a diamond in the sky.", "{name} sang it softly until the baby was asleep.", "{name} looked through the telescope and wondered too.",
    ),
    "Mary had a little lamb, its fleece was white as snow.": (
        "And everywhere that Mary went the lamb was sure to go.", "It followed her to school one day, and all the children laughed.", "{name} knew the rhyme by heart.",
    ),
    "Humpty Dumpty sat on a wall, Humpty Dumpty had a great fall.": (
        "All the king's horses and all the king's men could not put Humpty together again.", "\"Poor egg!\" said {name}.", "{name} tried to glue the shell together.",
    ),
    "Row, row, row your boat, gently down the stream.": (
        "Merrily, merrily, merrily, merrily, life is but a dream.", "{name} and {friend} sang it on the river all afternoon.",
    ),
    "Jack and Jill went up the hill to fetch a pail of water.": (
        "Jack fell down and broke his crown, and Jill came tumbling after.", "{name} helped them to carry the pail.",
    ),
    "To be or not to be, that is the question.": (
        "So begins a famous speech in a play by William Shakespeare.", "{name} spoke it on the stage with a loud voice.", "\"And what is the answer?\" asked {name}.",
    ),
    "I think, therefore I am.": ("So wrote the philosopher Descartes.", "\"And when I sleep?\" asked {name}. \"Then you dream,\" said {friend}."),
    "Roses are red, violets are blue, sugar is sweet, and so are you.": ("{name} wrote it on a card and gave it to {friend}.", "{friend} blushed when {fhe} read it."),
    "Red sky at night, shepherd's delight; red sky in the morning, shepherd's warning.": ("{name} looked at the evening sky and was {glad}.", "So {name} took a coat along."),
    "Thirty days have September, April, June and November.": ("All the rest have thirty-one, except February alone.", "{name} says it when {he} forgets how long a month is."),
    "One for sorrow, two for joy.": ("So people say when they count magpies.", "{name} saw two magpies and smiled."),
}

COURSE_LINES = (
    "The quick brown fox jumped over the lazy dog.",
    "The rain in Spain falls mainly on the plain.",
    "What comes up must come down.",
)
