# ruff: noqa: E501, SIM905 - the lists keep one group to a line
# fmt: off
"""Questions with right answers: what children know about countries, animals, words, calendars, tools, colours and small numbers."""

CAPITALS: dict[str, str] = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "England": "London", "Scotland": "Edinburgh",
    "Wales": "Cardiff", "Ireland": "Dublin", "Austria": "Vienna", "Switzerland": "Bern", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Denmark": "Copenhagen", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Iceland": "Reykjavik", "Poland": "Warsaw",
    "Hungary": "Budapest", "Greece": "Athens", "Turkey": "Ankara", "Russia": "Moscow", "Ukraine": "Kyiv", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "Croatia": "Zagreb", "Serbia": "Belgrade", "Slovenia": "Ljubljana", "Slovakia": "Bratislava", "Estonia": "Tallinn", "Latvia": "Riga",
    "Lithuania": "Vilnius", "Egypt": "Cairo", "Morocco": "Rabat", "Algeria": "Algiers", "Tunisia": "Tunis", "Kenya": "Nairobi", "Ethiopia": "Addis Ababa",
    "Nigeria": "Abuja", "Ghana": "Accra", "Senegal": "Dakar", "Uganda": "Kampala", "Rwanda": "Kigali", "Japan": "Tokyo", "China": "Beijing",
    "India": "New Delhi", "Nepal": "Kathmandu", "Thailand": "Bangkok", "Vietnam": "Hanoi", "Indonesia": "Jakarta", "the Philippines": "Manila",
    "Malaysia": "Kuala Lumpur", "South Korea": "Seoul", "Mongolia": "Ulaanbaatar", "Pakistan": "Islamabad", "Iran": "Tehran", "Iraq": "Baghdad",
    "Canada": "Ottawa", "Mexico": "Mexico City", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Argentina": "Buenos Aires", "Brazil": "Brasilia",
    "Colombia": "Bogota", "Ecuador": "Quito", "Uruguay": "Montevideo", "Venezuela": "Caracas", "Australia": "Canberra", "New Zealand": "Wellington",
    "Jordan": "Amman", "Lebanon": "Beirut", "Zambia": "Lusaka",
}
SOUNDS: dict[str, str] = {
    "cow": "moos", "dog": "barks", "cat": "meows", "sheep": "bleats", "horse": "neighs", "duck": "quacks", "pig": "grunts", "lion": "roars", "frog": "croaks",
    "bee": "buzzes", "snake": "hisses", "owl": "hoots", "mouse": "squeaks", "rooster": "crows", "hen": "clucks", "donkey": "brays", "wolf": "howls",
    "elephant": "trumpets", "goose": "honks", "sparrow": "chirps", "crow": "caws", "pigeon": "coos", "turkey": "gobbles", "cricket": "chirps",
}
YOUNG: dict[str, str] = {
    "cow": "calf", "dog": "puppy", "cat": "kitten", "sheep": "lamb", "horse": "foal", "duck": "duckling", "pig": "piglet", "lion": "cub", "frog": "tadpole",
    "goose": "gosling", "hen": "chick", "bear": "cub", "deer": "fawn", "goat": "kid", "swan": "cygnet", "owl": "owlet", "kangaroo": "joey", "elephant": "calf",
    "fox": "cub", "hare": "leveret", "eagle": "eaglet", "butterfly": "caterpillar", "seal": "pup", "whale": "calf",
}
HOMES: dict[str, str] = {
    "bird": "nest", "bee": "hive", "dog": "kennel", "horse": "stable", "rabbit": "burrow", "spider": "web", "lion": "den", "fox": "den", "beaver": "lodge",
    "cow": "barn", "pig": "sty", "hen": "coop", "squirrel": "drey", "badger": "sett", "otter": "holt", "sheep": "fold", "eagle": "nest",
}
LEGS: dict[str, int] = {"spider": 8, "bee": 6, "ant": 6, "dog": 4, "horse": 4, "hen": 2, "ostrich": 2, "butterfly": 6, "cat": 4, "frog": 4, "duck": 2, "beetle": 6, "cow": 4, "penguin": 2}
OPPOSITES: tuple[tuple[str, str], ...] = tuple(
    tuple(pair.split("/"))
    for pair in """hot/cold big/small up/down left/right day/night black/white fast/slow happy/sad open/closed young/old early/late
    light/dark long/short high/low rich/poor full/empty wet/dry loud/quiet strong/weak clean/dirty easy/difficult near/far soft/hard
    sweet/bitter tall/short thick/thin true/false brave/cowardly first/last inside/outside above/below begin/end push/pull give/take
    win/lose laugh/cry love/hate friend/enemy north/south east/west asleep/awake sharp/blunt wide/narrow deep/shallow rough/smooth
    always/never before/after same/different summer/winter question/answer""".split()
)
COLOURS: dict[str, str] = {
    "grass": "green", "the sky on a sunny day": "blue", "snow": "white", "a ripe lemon": "yellow", "coal": "black", "a ripe tomato": "red", "an orange": "orange",
    "chocolate": "brown", "a flamingo": "pink", "milk": "white", "a raven": "black", "a sunflower": "yellow", "an elephant": "grey", "a polar bear": "white",
    "a fire engine": "red", "a frog": "green", "a canary": "yellow", "a ripe plum": "purple", "a carrot": "orange", "salt": "white", "a swan": "white", "lavender": "purple",
}
MIXTURES: dict[tuple[str, str], str] = {
    ("blue", "yellow"): "green", ("red", "yellow"): "orange", ("red", "blue"): "purple", ("black", "white"): "grey", ("red", "white"): "pink",
}
TOOLS: dict[str, str] = {
    "a hammer": "to drive nails into wood", "a saw": "to cut wood", "a broom": "to sweep the floor", "an umbrella": "to stay dry in the rain", "a needle": "to sew clothes",
    "a thermometer": "to measure the temperature", "a clock": "to tell the time", "a compass": "to find the north", "a telescope": "to look at the stars",
    "a microscope": "to see very small things", "a key": "to open a lock", "scissors": "to cut paper", "a ladder": "to climb up high", "a kettle": "to boil water",
    "a pillow": "to rest your head on", "a watering can": "to water the plants", "an anchor": "to keep a ship in its place", "a map": "to find the way", "a spade": "to dig a hole",
    "a toothbrush": "to clean your teeth", "a spoon": "to eat soup", "a lamp": "to give light", "a bucket": "to carry water", "a rake": "to gather leaves", "an oven": "to bake bread",
    "a pen": "to write letters", "a bridge": "to cross a river", "a scale": "to weigh things", "glasses": "to see better", "a brush": "to paint a picture", "an oar": "to row a boat",
}
PLURAL_TOOLS = ("scissors", "glasses")
PROFESSIONS: dict[str, str] = {
    "bread": "A baker", "shoes": "A shoemaker", "honey": "A bee", "clothes": "A tailor", "chairs and tables": "A carpenter", "horseshoes": "A blacksmith",
    "clay pots": "A potter", "books": "A writer", "paintings": "A painter", "milk on a farm": "A cow", "webs": "A spider", "wool": "A sheep", "eggs": "A hen",
}
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
NUMBER_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen", "twenty",
)

GENERAL: tuple[tuple[str, str], ...] = (
    ("How many days are there in a week?", "There are seven days in a week."),
    ("How many months are there in a year?", "There are twelve months in a year."),
    ("How many hours are there in a day?", "There are twenty-four hours in a day."),
    ("How many minutes are there in an hour?", "There are sixty minutes in an hour."),
    ("How many seconds are there in a minute?", "There are sixty seconds in a minute."),
    ("How many seasons are there?", "There are four seasons: spring, summer, autumn and winter."),
    ("Which planet do we live on?", "We live on the planet Earth."),
    ("What is the largest planet of the solar system?", "The largest planet is Jupiter."),
    ("Which planet is closest to the sun?", "Mercury is the closest planet to the sun."),
    ("Which planet is called the red planet?", "Mars is called the red planet."),
    ("What do we call frozen water?", "Frozen water is called ice."),
    ("What is the largest animal in the world?", "The blue whale is the largest animal in the world."),
    ("What is the tallest animal in the world?", "The giraffe is the tallest animal in the world."),
    ("What is the fastest animal on land?", "The cheetah is the fastest animal on land."),
    ("What is the largest bird in the world?", "The ostrich is the largest bird in the world."),
    ("What is the largest ocean in the world?", "The Pacific Ocean is the largest ocean in the world."),
    ("What is the highest mountain in the world?", "Mount Everest is the highest mountain in the world."),
    ("Which continent is the largest?", "Asia is the largest continent."),
    ("Which continent is the coldest?", "Antarctica is the coldest continent."),
    ("How many continents are there?", "There are seven continents."),
    ("Where does the sun rise?", "The sun rises in the east."),
    ("Where does the sun set?", "The sun sets in the west."),
    ("What do bees make?", "Bees make honey."),
    ("What do caterpillars turn into?", "Caterpillars turn into butterflies or moths."),
    ("What do tadpoles turn into?", "Tadpoles turn into frogs."),
    ("What does a panda eat?", "A panda eats bamboo."),
    ("What does a rabbit like to eat?", "A rabbit likes to eat grass and carrots."),
    ("What do cows give us?", "Cows give us milk."),
    ("What do sheep give us?", "Sheep give us wool."),
    ("What do plants need to grow?", "Plants need light, water and air to grow."),
    ("How many sides does a triangle have?", "A triangle has three sides."),
    ("How many sides does a square have?", "A square has four sides."),
    ("How many sides does a hexagon have?", "A hexagon has six sides."),
    ("What shape is a ball?", "A ball is round."),
    ("How many colours does a rainbow have?", "A rainbow has seven colours."),
    ("How many fingers are there on one hand?", "There are five fingers on one hand."),
    ("How many strings does a violin have?", "A violin has four strings."),
    ("How many keys does a piano have?", "A piano usually has eighty-eight keys."),
    ("How many wheels does a bicycle have?", "A bicycle has two wheels."),
    ("How many wheels does a tricycle have?", "A tricycle has three wheels."),
    ("How many letters are there in the English alphabet?", "There are twenty-six letters in the English alphabet."),
    ("Which letter comes after A?", "The letter B comes after A."),
    ("Which is the last letter of the alphabet?", "The last letter of the alphabet is Z."),
    ("What do we breathe?", "We breathe air."),
    ("What do we see with?", "We see with our eyes."),
    ("What do we hear with?", "We hear with our ears."),
    ("What do we smell with?", "We smell with our nose."),
    ("What goes around the Earth?", "The moon goes around the Earth."),
    ("What does the Earth go around?", "The Earth goes around the sun."),
    ("What falls from the clouds?", "Rain and snow fall from the clouds."),
    ("What is a baker's favourite tool?", "A baker needs an oven most of all."),
    ("Who wrote Romeo and Juliet?", "William Shakespeare wrote Romeo and Juliet."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
    ("Who was the first person on the moon?", "Neil Armstrong was the first person on the moon."),
    ("What is the opposite of yes?", "The opposite of yes is no."),
    ("Which bird cannot fly but swims very well?", "The penguin cannot fly but swims very well."),
    ("Which animal has a trunk?", "The elephant has a trunk."),
    ("Which animal carries its house on its back?", "The snail carries its house on its back."),
    ("Which animal has black and white stripes?", "The zebra has black and white stripes."),
    ("Which animal has humps and lives in the desert?", "The camel has humps and lives in the desert."),
    ("Which season comes after winter?", "Spring comes after winter."),
    ("Which season comes after spring?", "Summer comes after spring."),
    ("Which season comes after summer?", "Autumn comes after summer."),
    ("Which season comes after autumn?", "Winter comes after autumn."),
    ("How many eggs are there in a dozen?", "There are twelve eggs in a dozen."),
    ("How many players does a football team have?", "A football team has eleven players."),
    ("How many squares does a chess board have?", "A chess board has sixty-four squares."),
    ("What do you call a person who flies an aeroplane?", "A person who flies an aeroplane is called a pilot."),
    ("What do you call a person who looks after teeth?", "A person who looks after teeth is called a dentist."),
    ("What do you call a doctor for animals?", "A doctor for animals is called a vet."),
    ("Where do fish live?", "Fish live in water."),
    ("Where do polar bears live?", "Polar bears live in the Arctic."),
    ("Where do penguins live?", "Most penguins live in the Antarctic and other places in the south."),
    ("Where do kangaroos live?", "Kangaroos live in Australia."),
    ("What is butter made from?", "Butter is made from milk."),
    ("What is bread made from?", "Bread is made from flour and water."),
    ("What is paper made from?", "Paper is made from wood."),
    ("What is glass made from?", "Glass is made from sand."),
    ("What is wine made from?", "Wine is made from grapes."),
    ("What is raisin another word for?", "A raisin is a dried grape."),
    ("What is a group of wolves called?", "A group of wolves is called a pack."),
    ("What is a group of fish called?", "A group of fish is called a school."),
    ("What is a group of sheep called?", "A group of sheep is called a flock."),
    ("What is a group of lions called?", "A group of lions is called a pride."),
    ("What is a group of bees called?", "A group of bees is called a swarm."),
    ("Why do we wear coats in winter?", "We wear coats in winter because it is cold."),
    ("Why do leaves look green?", "Leaves look green because of a substance called chlorophyll."),
    ("Why is the sea salty?", "The sea is salty because rivers carry salt from the rocks into it."),
    ("What does a magnet attract?", "A magnet attracts iron."),
    ("What is the boiling point of water?", "Water boils at one hundred degrees Celsius."),
    ("What is the freezing point of water?", "Water freezes at zero degrees Celsius."),
)
