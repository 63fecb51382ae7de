# ruff: noqa: E501, SIM905 - the lists keep one group to a line
# fmt: off
"""Word lists of the story grammar: names, characters, places, objects and everything a template's slot may draw from.

A value may itself hold slots (`{name}`) and choices (`[red|blue]`); `corpus.Scene` fills them when it draws the value.
"""

from typing import NamedTuple

GIRLS = tuple(
    """Anna Mira Lena Clara Ada Ines Yuki Aisha Fatima Nadia Olga Sofia Elena Marta Rosa Lucia Carmen Paula Nina Vera
    Tilda Freya Ingrid Astrid Sigrid Greta Heidi Elsa Frida Hanna Johanna Lotte Mathilde Amelie Colette Margot Simone
    Chloe Juliette Celeste Bianca Chiara Giulia Silvia Dora Petra Jana Milena Zora Danica Katya Irina Tamar Leila Yasmin
    Samira Noor Zahra Amira Salma Layla Shirin Parisa Priya Anjali Kavya Meera Lakshmi Asha Indira Mei Lan Hana Sakura
    Keiko Emiko Akiko Minh Linh Thuy Sari Dewi Malia Leilani Aroha Moana Amara Zola Nia Imani Abena Wanjiru Thandi
    Makena Naledi Ayana Selam Efua Ngozi Adaeze Rosalind Beatrice Harriet Edith Mabel Poppy Daisy Hazel Ivy Willow Wren
    Maeve Niamh Fiona Ailsa Isla Bronwen Carys Eleri Itzel Xochitl Marisol Paloma Valentina Ximena Luz Iara Tallulah
    Wilhelmina Philippa Matilda Agnes Bridget Martha Susanna Esther Miriam Naomi Ruth Talia""".split()
)
BOYS = tuple(
    """Tom Omar Ben Leo Max Oskar Emil Anton Jonas Felix Hugo Otto Karl Lars Nils Sven Olaf Erik Bjorn Axel Finn Kai
    Mikko Eero Janek Pavel Marek Milan Ivan Boris Dmitri Sergei Yuri Stefan Luka Niko Dimitri Stavros Andreas Marco
    Paolo Luigi Enzo Matteo Giovanni Pablo Diego Rafael Miguel Mateo Tomas Joaquin Santiago Pedro Luis Thiago Caetano
    Pierre Henri Jules Luc Bastien Marcel Theo Remy Hassan Karim Yusuf Tariq Samir Idris Malik Rashid Farid Ibrahim
    Cyrus Darius Ravi Arjun Kiran Rohan Vikram Anand Suresh Sanjay Bao Wei Chen Jun Kenji Hiro Takumi Daichi Haruki Min
    Joon Tuan Budi Agus Keanu Tane Wiremu Kofi Kwame Sefu Jabari Juma Baraka Themba Sipho Tendai Chidi Emeka Bello Desta
    Arthur Edmund Walter Percy Rufus Barnaby Jasper Silas Alfie Archie Oliver Rowan Robin Callum Hamish Angus Ewan Owen
    Rhys Dylan Declan Ronan Cormac Tupac Inti Nahuel Amaru Elias Jonah Noah Caleb Gideon Samuel Isaac Reuben""".split()
)


class Kind(NamedTuple):
    """What a character is: `a {noun} who {habit}`; gender "f" or "m" where the noun demands one."""

    noun: str
    hands: str
    habit: str
    gender: str = ""


PEOPLE = (
    Kind("farm girl", "hands", "[collected smooth stones|climbed every tree she saw|asked a hundred questions a day]", "f"),
    Kind("schoolgirl", "hands", "[loved to draw birds|walked to school along the river|slept with a book under her pillow]", "f"),
    Kind("farm boy", "hands", "[collected feathers|built little boats out of bark|asked a hundred questions a day]", "m"),
    Kind("schoolboy", "hands", "[loved to whistle|walked to school along the river|kept a snail in a jam jar]", "m"),
    Kind("baker", "hands", "[baked bread before sunrise|made the best honey cakes for miles around|always smelled of cinnamon]"),
    Kind("lighthouse keeper", "hands", "[lit the great lamp every evening|counted the passing ships|knew every wave by its sound]"),
    Kind("miller", "hands", "[ground flour from morning to night|had flour in every pocket]"),
    Kind("fisherman", "hands", "[mended nets by the door|went out in a small green boat]", "m"),
    Kind("gardener", "hands", "[talked to the roses|grew pumpkins as big as barrels|knew the name of every flower]"),
    Kind("clockmaker", "hands", "[listened to clocks all day|could tell the time with closed eyes]"),
    Kind("shoemaker", "hands", "[stitched boots by candlelight|made shoes that never pinched]"),
    Kind("beekeeper", "hands", "[sang to the bees|sold golden honey at the market]"),
    Kind("shepherd", "hands", "[watched over forty sheep|slept under the stars with the flock]"),
    Kind("tailor", "hands", "[sewed coats with tiny stitches|kept a hundred buttons in a jar]"),
    Kind("potter", "hands", "[made cups and bowls from river clay|painted blue fish on every plate]"),
    Kind("weaver", "hands", "[wove blankets in seven colours|worked at a tall wooden loom]"),
    Kind("carpenter", "hands", "[built chairs that never wobbled|always had a pencil behind one ear]"),
    Kind("letter carrier", "hands", "[brought letters to every door|knew every street and every dog]"),
    Kind("painter", "hands", "[painted the same hill every day|had more brushes than spoons]"),
    Kind("fiddler", "hands", "[played at every wedding|could make a whole crowd dance]"),
    Kind("teacher", "hands", "[taught the children to read|kept chalk in every pocket]"),
    Kind("librarian", "hands", "[knew where every book belonged|read aloud on rainy afternoons]"),
    Kind("stargazer", "hands", "[counted the stars from the roof|slept by day and watched the sky by night]"),
    Kind("cook", "hands", "[stirred soup in a giant pot|tasted everything twice]"),
    Kind("blacksmith", "hands", "[hammered horseshoes by the fire|could bend iron like dough]"),
    Kind("toymaker", "hands", "[carved wooden animals|made dolls with bright button eyes]"),
    Kind("bell ringer", "hands", "[rang the bells at noon|climbed two hundred steps every morning]"),
    Kind("farmer", "hands", "[grew barley and beans|rose with the rooster every day]"),
    Kind("sailor", "hands", "[had seen seven seas|could tie forty kinds of knots]"),
    Kind("lamplighter", "hands", "[lit the street lamps at dusk|carried a ladder everywhere]"),
    Kind("candle maker", "hands", "[dipped candles in warm wax|filled the shop with a sweet smell]"),
    Kind("basket maker", "hands", "[wove baskets from willow twigs|cut reeds by the water]"),
    Kind("glassblower", "hands", "[blew bottles as thin as bubbles|worked beside a glowing oven]"),
    Kind("goatherd", "hands", "[knew every goat by name|played a wooden flute on the hillside]"),
    Kind("woodcutter", "hands", "[stacked logs for the winter|never cut down a tree with a nest in it]"),
    Kind("innkeeper", "hands", "[had a warm bed for every traveller|served stew to hungry strangers]"),
    Kind("inventor", "hands", "[built strange machines in the attic|drew plans on every scrap of paper]"),
    Kind("knight", "hands", "[polished an old suit of armour|rode a slow but friendly horse]"),
    Kind("princess", "hands", "[would rather climb walls than sit on a throne|wore boots under her silk dress]", "f"),
    Kind("prince", "hands", "[would rather bake than fight|kept frogs in the royal bathtub]", "m"),
    Kind("pirate", "hands", "[was afraid of deep water|looked for treasure and found mostly seaweed]"),
    Kind("tinker", "hands", "[mended pots and kettles|pulled a rattling cart from town to town]"),
    Kind("train driver", "hands", "[waved at every crossing|was never a minute late]"),
    Kind("chimney sweep", "hands", "[danced across the rooftops|had a face as black as soot]"),
    Kind("grandmother", "hands", "[knitted socks for everyone|told stories by the stove]", "f"),
    Kind("grandfather", "hands", "[carved spoons on the porch|remembered every winter since childhood]", "m"),
    Kind("doctor", "hands", "[visited the sick by bicycle|carried peppermints in a black bag]"),
    Kind("ferry captain", "hands", "[crossed the river ten times a day|wore a cap with a silver anchor]"),
    Kind("giant", "hands", "[was taller than the church tower|took care never to step on a daisy]"),
    Kind("dragon", "claws", "[breathed only the smallest sparks|used warm breath to toast bread]"),
    Kind("robot", "hands", "[squeaked a little on wet days|learned one new word every morning]"),
    Kind("wizard", "hands", "[mixed up all the spells|had a hat that was much too large]", "m"),
    Kind("witch", "hands", "[brewed tea that cured the hiccups|flew a broom with a squeaky handle]", "f"),
)

ANIMALS = (
    Kind("fox", "paws", "[had a bushy red tail|slept under the roots of an old oak|loved blackberries]"),
    Kind("hare", "paws", "[could run faster than the wind|had the longest ears in the meadow]"),
    Kind("rabbit", "paws", "[lived in a tidy burrow|nibbled clover all day long]"),
    Kind("hedgehog", "paws", "[rolled up at every loud noise|collected leaves for a soft bed]"),
    Kind("mouse", "paws", "[lived behind the kitchen wall|was no bigger than a walnut]"),
    Kind("owl", "wings", "[slept all day in a hollow tree|read old books by moonlight]"),
    Kind("otter", "paws", "[slid down muddy banks|could float on the water for hours]"),
    Kind("badger", "paws", "[dug the deepest tunnels|liked everything to be in its proper place]"),
    Kind("bear", "paws", "[loved honey more than anything|slept from the first snow until spring]"),
    Kind("squirrel", "paws", "[hid acorns and forgot where they were|leaped from branch to branch]"),
    Kind("duckling", "wings", "[always swam at the end of the line|was the smallest of the family]"),
    Kind("frog", "legs", "[sang every evening on a lily leaf|could jump over a whole puddle]"),
    Kind("tortoise", "legs", "[was never in a hurry|carried a patterned shell]"),
    Kind("goose", "wings", "[honked at strangers|knew the way to the south and back]"),
    Kind("hen", "wings", "[laid one brown egg a day|scratched for corn behind the barn]", "f"),
    Kind("raven", "wings", "[collected shiny things|had a voice like a rusty gate]"),
    Kind("sparrow", "wings", "[nested under the roof tiles|chirped from morning until evening]"),
    Kind("cat", "paws", "[slept on the warmest windowsill|walked along the garden wall at night]"),
    Kind("dog", "paws", "[barked at the moon|buried bones all over the yard]"),
    Kind("donkey", "hooves", "[carried heavy sacks without complaining|had soft grey ears]"),
    Kind("goat", "hooves", "[ate everything, even hats|climbed on the roof of the shed]"),
    Kind("lamb", "hooves", "[had wool as white as milk|skipped over every fence]"),
    Kind("pony", "hooves", "[had a golden mane|loved apples and carrots]"),
    Kind("beaver", "paws", "[built dams across the stream|had strong orange teeth]"),
    Kind("mole", "paws", "[dug in the dark earth|wore very thick glasses]"),
    Kind("seal", "flippers", "[sunbathed on flat rocks|could balance anything on a wet nose]"),
    Kind("penguin", "wings", "[slid across the ice|wore what looked like a black coat]"),
    Kind("cricket", "legs", "[played music in the tall grass|kept the whole meadow awake]"),
    Kind("snail", "feelers", "[carried a striped house|left a silver path on the stones]"),
    Kind("stork", "wings", "[stood on one leg for hours|nested on the tallest chimney]"),
    Kind("elephant", "feet", "[never forgot a birthday|sprayed water at everyone]"),
    Kind("monkey", "hands", "[swung from the vines|played tricks on everybody]"),
    Kind("camel", "feet", "[could go a week without water|hummed while walking across the sand]"),
    Kind("kitten", "paws", "[chased every ball of wool|was afraid of nothing but baths]"),
    Kind("puppy", "paws", "[chewed every shoe in the house|had one white ear and one brown ear]"),
    Kind("turtle", "flippers", "[swam slowly through the warm water|had seen a hundred summers]"),
    Kind("wolf cub", "paws", "[practised howling at the moon|had paws that were much too large]"),
    Kind("hamster", "paws", "[ran in a wooden wheel|stuffed both cheeks with seeds]"),
    Kind("swan", "wings", "[glided over the quiet water|had a long and graceful neck]"),
    Kind("deer", "hooves", "[stepped lightly through the ferns|had white spots like snowflakes]"),
    Kind("crab", "claws", "[walked sideways everywhere|lived in a pool between the rocks]"),
    Kind("bat", "wings", "[slept upside down in the attic|came out only after sunset]"),
)


class Place(NamedTuple):
    """Where a story happens: `{where}` with its preposition, `the_place` afterwards, spots in it, the people there."""

    where: str
    short: str
    spots: tuple[str, ...]
    folk: str


PLACES = (
    Place("in a village by the sea", "the village", ("the harbour", "the beach", "the old pier", "the fish market"), "the fishermen"),
    Place("in a small town between two hills", "the town", ("the market square", "the stone bridge", "the town hall", "the fountain"), "the townspeople"),
    Place("at the edge of a deep forest", "the forest", ("the clearing", "the hollow oak", "the mossy stream", "the fern valley"), "the forest animals"),
    Place("on a windy island", "the island", ("the cliffs", "the sandy bay", "the tide pools", "the lighthouse"), "the islanders"),
    Place("high up in the mountains", "the mountain village", ("the steep path", "the waterfall", "the stone hut", "the goat meadow"), "the mountain people"),
    Place("on a farm beside a river", "the farm", ("the barn", "the hen house", "the orchard", "the duck pond"), "the farm animals"),
    Place("in a valley full of apple trees", "the valley", ("the cider mill", "the wooden gate", "the brook", "the old orchard"), "the apple pickers"),
    Place("in a busy city with tall houses", "the city", ("the railway station", "the park", "the library", "the tram stop"), "the neighbours"),
    Place("on the shore of a quiet lake", "the lake", ("the reeds", "the boathouse", "the wooden jetty", "the pebble beach"), "the lake people"),
    Place("in a windmill on a hill", "the windmill", ("the flour loft", "the creaking stairs", "the corn field", "the hilltop"), "the farmers"),
    Place("in a castle with a hundred rooms", "the castle", ("the drawbridge", "the tower", "the royal kitchen", "the rose garden"), "the castle servants"),
    Place("in a harbour town full of sailors", "the harbour town", ("the docks", "the rope shop", "the shipyard", "the narrow alley"), "the sailors"),
    Place("in a meadow full of wild flowers", "the meadow", ("the tall grass", "the crooked fence", "the clover patch", "the spring"), "the meadow animals"),
    Place("near an oasis in the desert", "the oasis", ("the palm trees", "the well", "the red dunes", "the caravan camp"), "the travellers"),
    Place("in a snowy land far to the north", "the snowy land", ("the frozen river", "the pine wood", "the ice hill", "the wooden hut"), "the northern people"),
    Place("in a street with colourful doors", "the street", ("the corner shop", "the playground", "the bus stop", "the bakery"), "the neighbours"),
    Place("beside a slow green river", "the riverside", ("the ferry landing", "the willow trees", "the water wheel", "the muddy bank"), "the river people"),
    Place("in a garden behind an old house", "the garden", ("the rose bed", "the greenhouse", "the tool shed", "the lily pond"), "the garden animals"),
    Place("in a market town with a crooked clock tower", "the market town", ("the clock tower", "the cheese stall", "the village green", "the inn"), "the merchants"),
    Place("in a jungle full of singing birds", "the jungle", ("the hanging bridge", "the mango tree", "the hidden pool", "the banana grove"), "the jungle animals"),
    Place("in a house on the edge of a marsh", "the marsh", ("the plank path", "the foggy pond", "the heron nest", "the peat hut"), "the marsh birds"),
    Place("on a boat that sailed along the canals", "the canal", ("the lock", "the towpath", "the low bridge", "the boatyard"), "the boat families"),
    Place("in a school at the top of the hill", "the school", ("the classroom", "the playground", "the music room", "the school garden"), "the pupils"),
    Place("in a travelling circus", "the circus", ("the big tent", "the ticket booth", "the painted wagons", "the costume trunk"), "the acrobats"),
    Place("in a cottage beside the railway", "the cottage", ("the platform", "the signal box", "the vegetable patch", "the tunnel"), "the railway workers"),
    Place("in the rice fields below a green mountain", "the rice fields", ("the bamboo grove", "the temple steps", "the water channel", "the tea house"), "the rice farmers"),
    Place("in a vineyard under the warm sun", "the vineyard", ("the wine cellar", "the stone wall", "the olive trees", "the dusty road"), "the grape pickers"),
    Place("in a cave above the blue sea", "the cave", ("the rocky ledge", "the gull cliffs", "the echo hall", "the narrow beach"), "the sea birds"),
)


class Thing(NamedTuple):
    """An object that can be carried and a sentence part for what is special about it: `It {does}.`"""

    noun: str
    does: str


THINGS = (
    Thing("lantern", "shone like a small sun"), Thing("whistle", "could be heard across the whole valley"),
    Thing("music box", "played a slow waltz"), Thing("kite", "danced high above the rooftops"),
    Thing("umbrella", "was wide enough for three"), Thing("teapot", "never dripped"),
    Thing("compass", "always pointed the way home"), Thing("scarf", "was as soft as a cloud"),
    Thing("drum", "sounded like thunder far away"), Thing("flute", "sang like a blackbird"),
    Thing("mirror", "made every room look brighter"), Thing("wooden boat", "floated even in the wildest puddle"),
    Thing("key", "was cold and heavy"), Thing("bell", "rang as clear as water"),
    Thing("book of stories", "had a picture on every page"), Thing("pocket watch", "ticked like a tiny heart"),
    Thing("blanket", "kept out the coldest wind"), Thing("basket", "could hold forty apples"),
    Thing("hat", "had a long feather on it"), Thing("button", "shone like a small moon"),
    Thing("spoon", "had a carved handle"), Thing("glass marble", "held a swirl of colours"),
    Thing("paintbrush", "had the finest hairs"), Thing("spinning top", "hummed while it turned"),
    Thing("bucket", "had never leaked a drop"), Thing("telescope", "brought the stars closer"),
    Thing("violin", "could laugh and weep"), Thing("map", "showed every path and every stream"),
    Thing("coin", "had a ship on one side"), Thing("ring", "sparkled in the sunlight"),
    Thing("cup", "kept the tea warm for hours"), Thing("broom", "swept away every crumb"),
    Thing("candle", "smelled of honey"), Thing("doll", "had bright button eyes"),
    Thing("ladder", "reached up to the highest branch"), Thing("feather", "was as light as a breath"),
    Thing("seashell", "whispered like the sea"), Thing("necklace", "had a pearl for every year"),
    Thing("accordion", "wheezed a little but sang all night"), Thing("pair of boots", "had walked a thousand miles"),
    Thing("wagon", "rolled on four painted wheels"), Thing("puppet", "could nod and wave"),
    Thing("trumpet", "was shinier than the sun"), Thing("jar of honey", "tasted of summer"),
    Thing("fishing rod", "bent but never broke"), Thing("notebook", "was full of tiny drawings"),
    Thing("magnifying glass", "made an ant look like a horse"), Thing("toy train", "ran in circles for hours"),
    Thing("cushion", "was stuffed with the softest down"), Thing("hammer", "had a smooth wooden handle"),
    Thing("pair of mittens", "had a snowflake on each thumb"), Thing("wind chime", "tinkled in the lightest breeze"),
    Thing("cuckoo clock", "called the hours a little too early"), Thing("sled", "flew over the snow"),
    Thing("stone", "was as round as an egg"), Thing("rope", "was as long as the church was tall"),
    Thing("backpack", "had eleven pockets"), Thing("snow globe", "held a tiny village"),
)

OBJECT_LOOKS = (
    "red", "blue", "green", "yellow", "silver", "golden", "old", "small", "little", "tiny", "striped", "painted",
    "shiny", "beautiful", "purple", "orange", "white", "crooked", "plain", "precious", "dusty", "bright", "strange",
    "lovely", "handmade", "worn", "spotted", "fine",
)


class Skill(NamedTuple):
    """Something to learn: `to {do}`, how the first try fails, and the day it works."""

    do: str
    doing: str
    fails: str
    works: str


SKILLS = (
    Skill("swim", "swimming", "swallowed half the pond and sank like a stone", "swam from one bank to the other"),
    Skill("whistle", "whistling", "blew and blew, but only air came out", "whistled a whole song without a mistake"),
    Skill("bake bread", "baking", "burned the loaf until it was as black as coal", "took a perfect golden loaf out of the oven"),
    Skill("juggle", "juggling", "dropped every ball and one of them rolled away", "kept five balls in the air"),
    Skill("ride a bicycle", "riding", "rolled straight into a hedge", "rode all the way down the lane without falling"),
    Skill("read", "reading", "mixed up all the letters", "read a whole page aloud without stopping"),
    Skill("dance", "dancing", "tripped over the carpet and knocked over a vase", "danced until the candles burned low"),
    Skill("skate", "skating", "slid across the ice on one ear", "made a perfect circle on the ice"),
    Skill("play the fiddle", "playing", "made a noise like a cat in a bucket", "played so sweetly that the birds fell silent"),
    Skill("paint", "painting", "spilled green paint over everything", "painted a picture that looked almost alive"),
    Skill("sail", "sailing", "steered straight onto a sandbank", "sailed around the whole bay"),
    Skill("knit", "knitting", "tied everything into one huge knot", "knitted a scarf from one end to the other"),
    Skill("climb", "climbing", "slipped down after three steps", "stood at the very top and waved"),
    Skill("cook soup", "cooking", "used sugar instead of salt", "served a soup that everyone wanted twice"),
    Skill("tell stories", "telling stories", "forgot the ending", "told a story so well that nobody moved"),
    Skill("count to a hundred", "counting", "got lost after twenty-nine", "counted to a hundred and even a little further"),
    Skill("build a wall", "building", "watched all the stones tumble down", "built a wall as straight as a ruler"),
    Skill("throw a pot on the wheel", "making pots", "got wet clay on the ceiling", "lifted a perfect bowl from the wheel"),
    Skill("speak without shaking", "speaking", "could not say a single word", "spoke in front of everybody in a clear voice"),
    Skill("row a boat", "rowing", "went round and round in a circle", "rowed across the water as straight as an arrow"),
    Skill("write letters", "writing", "covered the page with blots of ink", "wrote a whole letter in neat round words"),
    Skill("do a handstand", "practising", "fell over into the mud", "walked ten steps upside down"),
)


class Contest(NamedTuple):
    """A contest: its name, what one does in it, the mishap of another, the prize."""

    event: str
    task: str
    mishap: str
    prize: str


CONTESTS = (
    Contest("the great pie contest", "bake the best pie", "dropped all the eggs", "a silver spoon"),
    Contest("the summer boat race", "row to the buoy and back", "broke an oar", "a blue ribbon"),
    Contest("the kite festival", "fly a kite higher than the tower", "tore the paper of the kite", "a ball of golden string"),
    Contest("the singing contest", "sing the loveliest song", "lost the sheet of music", "a little brass bell"),
    Contest("the spring race", "run three times around the pond", "twisted an ankle", "a crown of daisies"),
    Contest("the giant pumpkin show", "grow the largest pumpkin", "found the pumpkin cart stuck in the mud", "a golden watering can"),
    Contest("the snow castle contest", "build the finest castle of snow", "saw a whole tower fall down", "a pair of woollen mittens"),
    Contest("the riddle evening", "solve the hardest riddle", "was too nervous to speak", "a book with a leather cover"),
    Contest("the cart race", "roll a homemade cart down the hill", "lost a wheel", "a polished horn"),
    Contest("the lantern parade", "make the brightest lantern", "ran out of paper", "a box of coloured candles"),
    Contest("the flower show", "grow the most beautiful rose", "spilled the water jug", "a porcelain vase"),
    Contest("the storytelling night", "tell the best story", "forgot every word", "a velvet cushion"),
    Contest("the sandcastle day", "build the tallest sandcastle", "was surprised by a wave", "a shell as big as a hat"),
    Contest("the soup festival", "cook the tastiest soup", "had no more firewood", "an iron pot"),
)


class Fault(NamedTuple):
    """Something broken: the thing, what no longer happened, and the small cause found inside."""

    thing: str
    trouble: str
    cause: str
    works: str


FAULTS = (
    Fault("the tower clock", "nobody knew when to get up or when to eat", "a bird had built a nest between the wheels", "struck twelve loud and clear"),
    Fault("the old bridge", "nobody could reach the market", "one single beam was rotten", "stood firm and strong again"),
    Fault("the water mill", "there was no flour for bread", "a fat branch was stuck in the wheel", "turned and splashed merrily"),
    Fault("the school bell", "all the children came late", "the rope had slipped off its hook", "rang across all the roofs"),
    Fault("the lighthouse lamp", "the ships could not find the way", "salt had covered the glass", "sent its beam far over the waves"),
    Fault("the village pump", "all the buckets stayed empty", "a little stone was blocking the pipe", "gave fresh cold water"),
    Fault("the bread oven", "breakfast was cold and crumbly", "a crack let out all the heat", "glowed and baked forty rolls at once"),
    Fault("the church organ", "every song sounded like a sneeze", "mice had hidden corn in the pipes", "filled the air with music"),
    Fault("the ferry", "no one could cross the river", "the chain had come loose", "glided over the water once more"),
    Fault("the weather vane", "nobody knew where the wind came from", "it had rusted in the autumn rain", "spun happily in the breeze"),
    Fault("the merry-go-round", "the wooden horses stood still", "a lost shoe was caught underneath", "turned to a cheerful tune"),
    Fault("the garden gate", "the goats ate all the cabbages", "a hinge had fallen into the grass", "closed with a gentle click"),
    Fault("the old piano", "the dances had become very quiet", "a string had snapped", "sounded better than ever before"),
    Fault("the windmill", "the sacks of corn piled up to the ceiling", "a sail had torn in the storm", "swung round in the fresh wind"),
    Fault("the steam engine", "the train stood still on the rails", "a tiny screw was missing", "puffed and hissed like new"),
)

WORDS: dict[str, tuple[str, ...]] = {
    "nature": (
        "kind", "shy", "clever", "cheerful", "curious", "patient", "brave", "quiet", "gentle", "stubborn", "merry",
        "honest", "young", "friendly", "careful", "dreamy", "lively", "thoughtful", "lonely", "hopeful", "wise", "playful",
        "generous", "forgetful", "hard-working", "sleepy", "polite", "bold", "good-natured", "modest", "little",
    ),
    "glad": ("happy", "glad", "delighted", "proud", "cheerful", "pleased", "overjoyed", "thankful", "relieved"),
    "sad": ("sad", "unhappy", "worried", "upset", "sorrowful", "miserable", "troubled", "downhearted"),
    "season": ("spring", "summer", "autumn", "winter"),
    "food": (
        "pancakes", "apple pie", "vegetable soup", "honey cake", "warm bread", "plum jam", "dumplings", "roasted chestnuts",
        "cheese and olives", "rice pudding", "noodles", "gingerbread", "pea soup", "cherry tart", "baked potatoes", "fresh rolls",
        "mushroom stew", "corn bread", "raisin buns", "cinnamon biscuits", "sweet porridge", "pumpkin soup", "toast with butter",
    ),
    "drink": ("hot cocoa", "mint tea", "warm milk", "apple juice", "lemonade", "ginger tea", "cold spring water", "elderberry syrup"),
    "flower": ("rose", "tulip", "daisy", "sunflower", "poppy", "lily", "violet", "bluebell", "foxglove", "marigold", "snowdrop", "orchid", "daffodil"),
    "tree": ("oak", "birch", "willow", "pine", "chestnut tree", "maple", "cherry tree", "linden", "elm", "fig tree", "walnut tree", "beech"),
    "plant": ("pumpkin", "bean", "sunflower", "pear tree", "rose bush", "cabbage", "melon", "tomato", "strawberry plant", "grapevine", "turnip", "lemon tree"),
    "bird": ("robin", "swallow", "heron", "thrush", "blackbird", "pigeon", "wren", "seagull", "woodpecker", "nightingale", "magpie", "kingfisher", "finch"),
    "elder": (
        "the old ferryman", "the wise old owl", "the village teacher", "the oldest tortoise", "the grey-haired librarian",
        "the old sea captain", "the kindly doctor", "the mayor", "the oldest shepherd", "the old midwife", "the clever raven",
        "the retired postman", "the quiet monk", "the herb woman", "the old heron", "the night watchman",
    ),
    "stray": ("kitten", "puppy", "duckling", "lamb", "fawn", "owlet", "baby hedgehog", "foal", "gosling", "baby rabbit", "chick", "piglet"),
    "hiding": (
        "under the stairs", "behind the flour sack", "inside an old boot", "under a pile of leaves", "on top of the cupboard",
        "in the bottom of the bread basket", "between two cushions", "in a magpie nest", "under the rowing boat", "inside the piano",
        "behind the rain barrel", "on the highest shelf", "under a cabbage leaf", "in the hay", "inside a flower pot",
        "between the roots of a tree", "in an empty beehive", "under the doormat", "behind the kitchen clock", "behind the stove",
    ),
    "treasure": (
        "a box of old letters", "a chest full of seeds", "a hundred glass marbles", "a tin of faded photographs",
        "a wooden crown", "a bundle of songs written by hand", "a sack of silver buttons", "a jar of sea glass", "a set of carved chess pieces",
        "a chest of costumes", "a recipe book with golden letters", "a music box with a dancing bear",
    ),
    "sound": (
        "a soft scratching", "a long low howl", "three slow knocks", "a strange humming", "a tiny sneeze", "a rattling like old bones",
        "a whistling from the chimney", "a splash and a giggle", "heavy footsteps", "a squeaking noise", "a tapping at the window",
    ),
    "maker": (
        "a hungry mouse with a nut", "a loose shutter in the wind", "a family of hedgehogs", "a lost duckling", "the neighbour's cat in a bucket",
        "a squirrel rolling acorns", "a branch against the glass", "an owl with a cold", "a frog inside the watering can", "a raccoon with a biscuit tin",
    ),
    "present": (
        "a warm scarf", "a painted box", "a wooden flute", "a little boat", "a basket of pears", "a pot of honey", "a paper lantern",
        "a quilt of many colours", "a picture of the sunset", "a chair that rocks", "a bird house", "a pair of slippers", "a song",
        "a necklace of shells", "a clay mug", "a cake with nine candles", "a story in a homemade book", "a rag doll", "a silk kite", "a garden bench",
    ),
    "machine": (
        "a machine that peeled apples", "a boat with paper wings", "a bicycle for two", "a clock that sang", "a raft made of barrels",
        "a lamp that ran on wind", "a machine that sorted buttons", "a chair on wheels", "a bird made of tin", "a hat that held an umbrella",
        "a cart with a sail", "a ladder that folded like a fan", "a bed that rocked by itself", "an automatic broom", "a kettle that whistled songs",
    ),
    "part": ("a bent spoon", "an old bicycle wheel", "a handful of screws", "two broken umbrellas", "a rusty spring", "a coil of copper wire", "a teapot lid", "some barrel hoops", "a cracked flowerpot", "the strings of a guitar"),
    "destination": (
        "the city behind the hills", "the far side of the mountain", "the white house on the hill", "the last island in the bay",
        "the monastery on the rock", "the big winter market", "the palace of the queen", "the end of the railway line", "the northern lighthouse",
        "the village at the foot of the volcano", "the old observatory", "the university in the capital",
    ),
    "obstacle": (
        "a wide river without a bridge", "a forest so dark that the path disappeared", "a gate with a rusty lock", "a steep wall of rock",
        "a thick white fog", "a field of deep snow", "a very grumpy bull", "a swamp full of mosquitoes", "a crossroads with no signs", "a fallen tree",
    ),
    "town_event": ("market day", "the day of the harvest festival", "the day of the spring fair", "the first day of winter", "the night of the full moon", "the day of the lanterns", "the first day of summer", "the last day of school"),
    "disaster": ("a tree had fallen across the road", "two roofs had blown away", "the cellars were full of water", "the fences were flat", "the path was covered with branches", "the little bridge had been swept away"),
    "storm": ("a terrible storm", "a wild snowstorm", "a sudden thunderstorm", "a howling gale", "a great flood", "a storm of hail"),
    "feature": ("a long grey beard", "a coat with a hundred pockets", "one green boot and one brown boot", "a lantern and no shoes", "a parrot on one shoulder", "a suitcase full of sand", "eyes as blue as the sea", "a hat made of leaves", "a cart full of clocks", "an enormous umbrella"),
    "trade": ("a travelling puppet player", "a map maker", "a star collector", "a retired acrobat", "a seller of seeds", "a lost astronomer", "a wandering poet", "a cousin from far away", "the inspector of rainbows", "a doctor for sick trees", "a famous singer", "an explorer on the way home"),
    "fear": ("the dark", "thunder", "deep water", "high places", "big dogs", "speaking aloud", "the empty cellar", "the long tunnel", "the shadows on the wall", "the old scarecrow"),
    "wish": (
        "to see the sea", "to fly just once", "to have a real friend", "to hear the whales sing", "to find a home", "to see snow", "to touch a cloud",
        "to become a little braver", "to learn a song that nobody knew", "to sail around the world", "to see the mountain from the other side", "to be useful to somebody",
    ),
    "wisher": ("a falling star", "the old wishing well", "a silver fish", "the new moon", "a dandelion", "the first snowflake of the year", "a very old stone", "a rainbow"),
    "price": ("three kind deeds", "a promise", "a song", "a night without sleep", "a little patience", "one true word", "a crust of bread"),
    "quiet_time": ("that evening", "later that night", "when the sun went down", "after supper", "when the first stars came out", "at the end of the day", "before bedtime"),
    "next_time": ("the next morning", "the next day", "a week later", "the following evening", "two days later", "early the next day", "on the third day"),
    "soft": ("softly", "gently", "quietly", "kindly", "warmly", "with a smile"),
    "fruit": ("apples", "pears", "plums", "cherries", "oranges", "figs", "grapes", "peaches", "lemons", "strawberries", "bananas", "blackberries"),
    "lesson": (
        "a small kindness can travel a long way", "it is never too late to say sorry", "good things take time", "two can carry more than one",
        "courage does not have to be loud", "the best treasures can be shared", "it is wise to ask for help", "every mistake teaches something",
        "a friend is worth more than gold", "home is where somebody waits for you", "listening is better than shouting", "even the smallest hand can help",
        "there is more than one way to win", "the truth is always the shortest path", "nobody is too small to matter", "a promise should be kept",
    ),
    "smell": ("fresh bread", "rain", "hay", "salt and seaweed", "woodsmoke", "lavender", "pine needles", "cinnamon", "wet earth", "orange peel"),
    "day_sky": ("the sky was pink and gold", "a light rain was falling", "the sun was warm", "the wind smelled of {smell}", "mist lay over the ground", "clouds sailed by like ships", "leaves were dancing in the wind", "a rainbow stood in the sky", "the air was clear and fresh"),
    "night_sky": ("the stars were out", "the moon was round and bright", "a soft rain was falling on the roof", "the wind sang in the chimney", "a thousand stars were shining", "a single cloud covered the moon", "everything was still", "the crickets were singing"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty"),
    "subject": ("music", "drawing", "history", "geography", "mathematics", "gymnastics", "biology", "spelling"),
    "weekday": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "relative": ("aunt", "uncle", "cousin", "grandmother", "grandfather", "sister", "brother", "neighbour"),
    "news": (
        "our cat has had five kittens", "the apple tree is in blossom", "I have learned to swim", "we have painted the kitchen yellow", "a stork has built a nest on our chimney",
        "my tooth has finally come out", "the new library has opened", "I have planted forty beans", "we saw a whale from the ferry", "the school choir won a prize",
        "it has been snowing for three days", "our hens have begun to lay again", "I have a new bicycle", "we found a hedgehog in the woodpile", "the river has frozen over",
        "I can play a whole song on the violin", "father has built a swing", "the old mill is turning again", "I have read eleven books this month", "a circus has come to town",
    ),
    "thanks": (
        "the lovely book", "the woollen socks", "the jar of plum jam", "your long letter", "the seeds", "the beautiful painting", "the box of chocolates",
        "the kite", "the photograph", "your kind invitation", "the puzzle", "the warm blanket", "the recipe", "the postcard from the mountains", "the knitted hat",
    ),
    "plan": (
        "walk along the beach", "bake biscuits together", "visit the museum", "climb the hill behind the house", "pick blackberries", "watch the boats in the harbour",
        "build a tree house", "play cards all evening", "go fishing at the lake", "listen to the concert in the park", "feed the ducks", "look at the stars through my telescope",
    ),
}
