# ruff: noqa: E501, SIM905 - the lists keep one group to a line
# fmt: off
"""Sentence templates of the stories and letters.

`{slot}` is bound once per story and then stays the same; `{slot*}` is drawn afresh; `{a slot}` puts "a" or "an" in front;
`{Slot}` starts with a capital; `[one|two]` picks one. A plot is a list of beats, a beat is a list of alternative templates.
"""

OPENINGS = (
    "once upon a time there was {a nature} {kind} named {name} who lived {where}. {He} {habit}.",
    "once upon a time, {where}, there lived {a nature} {kind} called {name} who {habit}.",
    "once upon a time there lived {a kind} whose name was {name}. {name} lived {where} and {habit}.",
    "once upon a time {a kind} called {name} lived {where}. Everybody there knew {name}, who {habit}.",
    "once upon a time there was {a kind} named {name}. {name} was {nature} and lived {where}.",
    "once upon a time, {a nature} {kind} named {name} [had a home|had a small room|kept a tidy house] {where}.",
    "there was once {a nature} {kind} named {name} who lived {where}. {He} {habit}.",
    "there was once {a kind} named {name} who {habit}. {name} lived {where}.",
    "there once was {a kind} called {name}. {He} lived {where} and was known to be very {nature}.",
    "{where} lived {a nature} {kind} named {name} who {habit}.",
    "{where} there lived {a kind} called {name}. {name} {habit}.",
    "{where} there was {a kind} whose name was {name}. {Folk} said that nobody was as {nature} as {name}.",
    "long ago, {where}, there lived {a kind} named {name} who {habit}.",
    "long ago there was {a nature} {kind} called {name}, who lived {where}.",
    "a long time ago {a kind} named {name} lived {where}. {name} was {nature} and {habit}.",
    "many years ago {a nature} {kind} named {name} made a home {where}. {He} {habit}.",
    "one morning, {name} the {kind} woke up early. {He} lived {where} and {habit}.",
    "one morning, {a kind} named {name} looked out of the window. {He} lived {where}, and {day_sky}.",
    "one {season} morning, {name} the {kind} went for a walk. {name} lived {where} and was {nature}.",
    "one evening, {name} the {kind} sat by the door and watched the sky. {He} lived {where} and {habit}.",
    "one {season} day, {a nature} {kind} named {name} sat near {spot}. {He} lived {where}.",
    "{name} was {a nature} {kind} who lived {where}. {He} {habit}.",
    "{name} the {kind} lived {where}. {He} was {nature}, and {he} {habit}.",
    "in a time before anybody can remember, {a kind} named {name} lived {where}. {name} {habit}.",
    "it was {a season} morning, and {day_sky}. {name} the {kind}, who lived {where}, was in no hurry at all.",
    "this is the story of {name}, {a nature} {kind} who lived {where}. {name} {habit}.",
    "not so long ago, {where}, {a kind} named {name} was sitting near {spot}. {name} was very {nature}.",
    "every morning, {name} the {kind} walked past {spot}. {name} lived {where} and {habit}.",
    "far away, {where}, lived {a kind} by the name of {name}. {He} {habit}.",
    "when the world was a little younger, {a nature} {kind} named {name} lived {where}.",
)

COLOURS = (
    "it was {season}, and {day_sky}.",
    "the air smelled of {smell}, and {a bird} was singing near {spot}.",
    "{name} liked to eat {food} and drink {drink}.",
    "{folk} [always waved to {name}|liked {name} very much|often asked {name} for advice].",
    "on most days {name} took a walk to {spot} and [looked at the clouds|counted the birds|hummed a little tune].",
    "a tall {tree} grew near {spot}, and {name} often sat under it.",
    "in the autumn, {name} picked {fruit} and shared them with {folk}.",
)

ENDINGS = (
    "and from that day on, {name} was the [happiest|proudest|merriest] {kind} [of all|in the whole land|far and wide].",
    "that night {name} slept [soundly|deeply|better than ever], and {night_sky}.",
    "and so {name} learned that {lesson}.",
    "{name} never forgot that {lesson}.",
    "ever since that day, {name} and {friend} have been the best of friends.",
    "and if you ever come to {place}, you may still meet {name} there.",
    "{name} smiled and thought, \"What a [wonderful|fine|beautiful] day!\"",
    "\"All is well that ends well,\" said {name}, and everybody laughed.",
    "and {name} lived happily ever after.",
    "{name} went home, drank a cup of {drink} and fell asleep with a smile.",
    "to this day {folk} tell the story of {name}.",
    "\"Home is the best place of all,\" said {name}, and closed the door quietly.",
    "and {name} laughed so [loudly|heartily] that {a bird} on the roof began to sing.",
    "\"Good night, {friend},\" said {name}. \"Good night, {name},\" said {friend}.",
    "in the evening {name} and {friend} ate {food} together and watched the stars.",
    "and whenever it was {season} again, {name} remembered that day.",
    "then {name} looked up at the sky and felt very {glad}.",
    "since then, everyone has known that {lesson}, and nobody knows it better than {name}.",
    "{name} was tired but {glad}, and soon the whole place was quiet.",
    "after that, {name} was never {sad} for long.",
)

PLOTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "lost and found": (
        (
            "{name}'s greatest treasure was {a obj}. It {objdoes}.",
            "{name} owned {a obj} that {objdoes}, and {he} took it everywhere.",
            "on {town_event}, {name} had been given {a obj}. It {objdoes}.",
            "nothing in the world was dearer to {name} than {his} {obj}, which {objdoes}.",
        ),
        (
            "one day the {thing} was gone. {name} looked [everywhere|high and low], but {he} could not find it.",
            "but one windy day {name} came home without the {thing}. \"Oh no!\" cried {name}. \"I have lost it!\"",
            "then, one {season} morning, the {thing} was not in its place. {name} felt very {sad}.",
            "one afternoon {name} reached for the {thing}, and there was nothing there at all.",
        ),
        (
            "{name} searched at {spot}, and then at {spot2}, but found only {a flower} and an old sock.",
            "first {name} ran to {spot}. Then {he} ran to {spot2}. The {thing} was not there.",
            "{name} asked {folk}, but nobody had seen the {thing}.",
            "\"Where did I have it last?\" thought {name}, and walked slowly back to {spot}.",
        ),
        (
            "near {spot2} {name} met {friend} the {fkind}. \"Why are you so {sad}, {name}?\" asked {friend}.",
            "{friend} the {fkind} saw {name} crying. \"I will help you to look,\" said {friend} {soft}.",
            "\"Do not give up,\" said {friend}, {a fkind} who {fhabit}. \"Four eyes see more than two.\"",
            "then {friend} the {fkind} came by. \"Tell me what you did today, {name},\" {fhe} said, \"step by step.\"",
        ),
        (
            "together {name} and {friend} looked once more, and at last they found the {thing} {hiding}!",
            "{name} and {friend} searched until it was almost dark. And there it was, {hiding}!",
            "{friend} began to laugh. \"Look, {name}!\" {fhe} cried. The {thing} was {hiding}.",
            "suddenly {name} remembered. {He} ran home, and sure enough, the {thing} was lying {hiding}.",
        ),
        (
            "\"Thank you, {friend},\" said {name}, and held the {thing} tightly.",
            "{name} hugged {friend} and promised to take better care of the {thing}.",
            "{name} was so {glad} that {he} invited {friend} for {food}.",
            "from then on {name} kept the {thing} on a hook beside the door, and {friend} often came to see it.",
        ),
    ),
    "a gift": (
        (
            "soon it would be the birthday of {friend} the {fkind}, {name}'s best friend.",
            "{name} had a friend named {friend}, {a fkind} who {fhabit}. On {town_event}, {friend} would have a birthday.",
            "{name} wanted to give {friend} the {fkind} something special, because {friend} had been ill for a long time.",
            "\"Tomorrow is the birthday of {friend} the {fkind},\" thought {name}, \"and I have no present!\"",
        ),
        (
            "{name} had only {number} pennies, and that was not enough for anything in the shop.",
            "{name} turned out all the drawers, but there was nothing good enough for a friend like {friend}.",
            "{name} walked up and down near {spot} and thought very hard about what {friend} would like.",
            "{name} asked {folk} for advice. \"Give something that you made yourself,\" they said.",
        ),
        (
            "so {name} decided to make {present}. {He} worked all night with {his} own {hands}.",
            "then {name} had an idea. \"I will make {present}!\" {he} said, and set to work at once.",
            "for {number} days {name} worked in secret. It was going to be {present}.",
            "{name} sat down near {spot2} and began to make {present}, slowly and carefully.",
        ),
        (
            "when it was finished, one corner was crooked, and {name} was {sad}.",
            "it was not perfect. \"What if {friend} does not like it?\" {name} worried.",
            "{name} wrapped it in paper and tied it with a ribbon that was much too long.",
            "on the way to {friend}'s house {name} grew more and more nervous.",
        ),
        (
            "{friend} opened the present, and {fhis} eyes grew wide. \"You made this, {name}? For me?\"",
            "{friend} looked at it for a long time. \"{name},\" {fhe} said {soft}, \"this is the best gift I have ever had.\"",
            "\"Oh, {name}!\" cried {friend}. \"Nobody has ever made anything for me before!\"",
            "{friend} laughed and danced around the room. \"It is just what I wanted, {name}!\"",
        ),
        (
            "then {name} and {friend} ate {food} and drank {drink} until the moon was high.",
            "{name} blushed and felt very {glad}.",
            "\"The best part is the crooked corner,\" said {friend}, \"because it shows that {name} made it.\"",
            "and {friend} gave {name} a hug that lasted almost a minute.",
        ),
    ),
    "a storm": (
        (
            "one {season} night {storm} came over {place}.",
            "one afternoon the sky turned black, and {storm} broke loose. {name} closed all the windows.",
            "then came {storm}. The wind howled around {spot}, and {name} could hardly stand.",
            "nobody had expected {storm}, least of all {name}.",
        ),
        (
            "{name} heard a voice calling for help from {spot}. It was {friend} the {fkind}!",
            "through the wind {name} heard somebody cry, \"Help! Is anybody there?\" It was {friend}, {a fkind} from {spot}.",
            "{name} thought of {friend} the {fkind}, who was all alone near {spot2}.",
            "there was a knock at the door. Outside stood {friend} the {fkind}, wet from head to toe.",
        ),
        (
            "{name} took {his} {obj} and ran out into the storm. \"I am coming, {friend}!\" {he} shouted.",
            "without waiting, {name} grabbed a rope and {a obj}. \"Hold on, {friend}!\" cried {name}.",
            "\"Come in, {friend}, quickly!\" said {name}. {He} lit a fire and brought a blanket.",
            "{name} was afraid, but {he} took {friend} by the arm and led {fhim} to a safe dry corner.",
        ),
        (
            "all night {name} and {friend} sat together and told each other stories while the thunder rolled.",
            "{name} shared {his} {food} with {friend}, and they listened to the rain.",
            "\"Are you not afraid, {name}?\" asked {friend}. \"A little,\" said {name}, \"but less when you are here.\"",
            "to forget the wind, {name} and {friend} sang every song they knew, and then sang them again.",
        ),
        (
            "{next_time} the storm was over, but {disaster}.",
            "when the sun rose, {name} looked out and saw that {disaster}.",
            "in the morning it was still and bright. {Folk} came out of their homes and saw that {disaster}.",
        ),
        (
            "so {name} and {friend} rolled up their sleeves and began to clear up, and {folk} came to help.",
            "{name} called {folk} together. \"If everyone helps, it will be done by evening,\" said {name}.",
            "\"We will mend it,\" said {name}. {friend} fetched the tools, and they worked side by side.",
        ),
        (
            "by evening everything was in order again, and {friend} thanked {name} with all {fhis} heart.",
            "{folk} cheered for {name} and {friend}, and there was {food} for all.",
            "\"You were very brave, {name},\" said {friend}. \"We were brave together,\" said {name}.",
        ),
    ),
    "learning": (
        (
            "more than anything, {name} wanted to learn to {do}.",
            "{name} could do many things, but {he} could not {do}.",
            "everybody {in_place} could {do}, only {name} could not.",
            "\"I wish I could {do},\" sighed {name} one {season} day.",
        ),
        (
            "the first time {name} tried, {he} {fails}.",
            "{name} tried it in secret near {spot}, and {fails}.",
            "{name} took a deep breath and began, but {he} {fails}.",
        ),
        (
            "some of {folk} laughed, and {name} hid behind {a tree}.",
            "\"I will never learn it,\" said {name}, and felt {sad}.",
            "{name} wanted to give up. \"It is too hard for {a kind},\" {he} said.",
            "the second try was no better, and {name} went home with a red face.",
        ),
        (
            "but {friend} the {fkind} had been watching. \"I failed {number} times before I learned it,\" said {friend}.",
            "then {friend} the {fkind} sat down beside {name}. \"Nobody is born knowing how,\" {fhe} said {soft}.",
            "{friend}, {a fkind} who {fhabit}, smiled. \"Shall we practise together, {name}?\" {fhe} asked.",
            "{elder} heard about it and sent {friend} the {fkind} to help {name}.",
        ),
        (
            "every day {name} and {friend} met near {spot2} and practised {doing}.",
            "so {name} tried again, and again, and {friend} clapped each time it went a little better.",
            "{name} practised {doing} in the morning, at noon and in the evening, in sunshine and in rain.",
            "\"A little better every day,\" said {friend}, and {name} believed {fhim}.",
        ),
        (
            "and on {town_event}, in front of {folk}, {name} {works}.",
            "{next_time} it happened: {name} {works}!",
            "at last, one {season} day, {name} {works}. \"I did it!\" {he} cried.",
            "then came the great day. {name} closed {his} eyes, thought of {friend}, and {works}.",
        ),
        (
            "\"You see, {name}?\" said {friend}, and was just as {glad} as {name}.",
            "{friend} cheered the loudest. \"I knew you could {do}, {name}!\"",
            "soon afterwards a small {stray} came to {name} and asked, \"Can you teach me to {do}?\" \"Of course,\" said {name}.",
        ),
    ),
    "a contest": (
        (
            "every {season} there was {event} {in_place}. Whoever could {task} would win {prize}.",
            "{name} had heard about {event}. The task was to {task}, and the prize was {prize}.",
            "\"This year I will enter {event},\" said {name}. \"I am going to {task}.\"",
            "on {town_event} everybody talked about {event}, and {name} wanted to win {prize}.",
        ),
        (
            "{friend} the {fkind} wanted to win as well, and {friend} had won {number} times before.",
            "\"You will never beat me, {name},\" boasted {friend} the {fkind}.",
            "{name}'s friend {friend}, {a fkind} who {fhabit}, was going to take part too.",
        ),
        (
            "{name} prepared for weeks. {He} practised near {spot} before breakfast and after supper.",
            "so {name} worked hard, while {friend} slept late and ate {food}.",
            "{elder} gave {name} a piece of advice: \"Do your best, and be kind.\"",
        ),
        (
            "the day came, and {day_sky}. {Folk} crowded around {spot2} and cheered.",
            "at last the day of {event} arrived. {name}'s heart was beating fast.",
            "when the bell rang, {name} and {friend} began. It was going very well for {name}.",
        ),
        (
            "but just then {friend} {mishap}. {name} saw it and stopped.",
            "then {name} heard a cry. Poor {friend} {mishap}!",
            "in the middle of it all, {friend} {mishap} and looked very {sad}.",
        ),
        (
            "\"Go on, {name}, or you will lose!\" shouted {folk}. But {name} went to help {friend}.",
            "{name} did not think about {prize} any more. {He} ran over and helped {friend}.",
            "\"Take what you need from me,\" said {name}, and gave {friend} a helping hand.",
        ),
        (
            "somebody else won that year. But {elder} called {name} to the front and gave {him} {a flower} for the kindest heart.",
            "in the end {name} and {friend} came last together, and {folk} clapped louder for them than for the winner.",
            "the judges whispered for a long while. Then they gave {prize} to {name} and {friend} together.",
            "{friend} won after all, but {fhe} put {prize} into {name}'s {hands}. \"It belongs to you,\" said {friend}.",
        ),
    ),
    "a secret": (
        (
            "{name} had a secret. Near {spot}, {hiding}, {he} kept {a obj}.",
            "one day, near {spot}, {name} found {a obj} {hiding}. It {objdoes}.",
            "nobody knew that {name} owned {a obj}. It {objdoes}, and {name} hid it {hiding}.",
        ),
        (
            "\"I will not tell anybody,\" thought {name}. \"It is mine alone.\"",
            "every evening {name} looked at the {thing} by candlelight and told no one about it.",
            "{name} was afraid that somebody would take the {thing} away.",
        ),
        (
            "but a secret is heavy. When {friend} the {fkind} came to play, {name} would not open the door.",
            "soon {name} no longer went to {spot2}, and {he} forgot to visit {friend} the {fkind}.",
            "\"Why are you so quiet, {name}?\" asked {friend} the {fkind}. {name} looked away and said nothing.",
        ),
        (
            "one day {name} heard that {friend} had been looking for {fhis} {thing} for weeks.",
            "then {name} learned that the {thing} had once belonged to {friend}'s grandmother.",
            "{name} felt lonely. What use was the {thing} if nobody else could enjoy it?",
        ),
        (
            "that night {name} could not sleep. In the morning {he} took the {thing} and went to {friend}.",
            "\"A secret that hurts a friend is not a good secret,\" said {elder}, and {name} knew that it was true.",
            "{name} thought about it near {spot} and made up {his} mind.",
        ),
        (
            "\"I have to tell you something, {friend},\" said {name}, and showed {fhim} the {thing}.",
            "{name} put the {thing} on the table. \"I should have told you before, {friend},\" {he} said.",
            "\"{friend}, this is my secret,\" said {name}, and {his} {hands} were trembling.",
        ),
        (
            "{friend} was not angry at all. \"Thank you for telling me, {name},\" {fhe} said {soft}.",
            "{friend} laughed with joy. \"Let us share it, {name}!\" {fhe} said.",
            "\"It was brave of you to tell me,\" said {friend}, and {name} felt as light as a feather.",
        ),
    ),
    "a journey": (
        (
            "one day {name} had to bring {a obj} to {destination}.",
            "\"Somebody must carry this {obj} to {destination},\" said {elder}. \"I will go,\" said {name}.",
            "{name} had always wanted to see {destination}. So {he} packed {a obj} and some {food}.",
            "a letter came for {name}: \"Please come to {destination}, and bring the {obj}.\"",
        ),
        (
            "{name} set out at dawn, and {day_sky}.",
            "{folk} waved until {name} was out of sight.",
            "{name} walked past {spot} and past {spot2}, farther than {he} had ever been.",
        ),
        (
            "on the second day {name} came to {obstacle}. {He} did not know what to do.",
            "everything went well until {name} reached {obstacle}.",
            "but then {obstacle} lay before {name}, and it was getting dark.",
        ),
        (
            "there {name} met {friend} the {fkind}. \"I know this place,\" said {friend}. \"Follow me.\"",
            "\"You look tired,\" said a voice. It was {friend}, {a fkind} who {fhabit}. {name} told {fhim} everything.",
            "{a fkind} named {friend} was sitting by the road. \"Share your {food} with me, {name}, and I will help you,\" said {friend}.",
        ),
        (
            "with the help of {friend} it was not so hard, and by noon {name} could see the end of the road.",
            "{name} used the {thing} in a clever way, {friend} pushed from behind, and they got through.",
            "{name} and {friend} went slowly, step by step, and sang to keep up their courage.",
        ),
        (
            "after {number} days {name} arrived at {destination}. Everybody admired the {obj}.",
            "at last {name} stood at the end of the journey and held up the {thing}. {friend} cheered.",
            "when {name} and {friend} arrived, they were given {food} and a soft bed.",
        ),
        (
            "\"The road was long,\" said {name}, \"but I found a friend.\" And {friend} nodded.",
            "on the way home {name} and {friend} already made plans for the next journey.",
            "{name} came home with dusty feet and {number} new stories about {friend}.",
        ),
    ),
    "a quarrel": (
        (
            "{name} and {friend} the {fkind} were friends. They did everything together.",
            "{name}'s best friend was {friend}, {a fkind} who {fhabit}.",
            "{name} lived next door to {friend} the {fkind}, and they shared {a obj}.",
        ),
        (
            "but one day they quarrelled about {a obj}. \"It is mine!\" shouted {name}. \"No, it is mine!\" shouted {friend}.",
            "one {season} day {name} and {friend} could not agree about the {obj}. They pulled and pulled until it fell to the ground.",
            "then {friend} borrowed {name}'s {obj} and forgot to bring it back. {name} was very angry.",
        ),
        (
            "\"I will never speak to you again, {friend}!\" cried {name}, and slammed the door.",
            "{name} went home in one direction and {friend} in the other, and neither looked back.",
            "for {number} days {name} and {friend} did not say a word to each other.",
        ),
        (
            "but it was dull to sit near {spot} alone, and {name} did not even enjoy {his} {food}.",
            "the {thing} was {name}'s now, but it was no fun without {friend}.",
            "at {spot2} everybody was playing. Only {name} stood apart and felt {sad}.",
        ),
        (
            "{elder} saw it and said, \"Whoever says sorry first is the stronger one, {name}.\"",
            "\"Was it really so important?\" {name} asked {himself}.",
            "{quiet_time} {name} thought about all the good days with {friend}.",
        ),
        (
            "so {name} took the {thing} and knocked at {friend}'s door. \"I am sorry, {friend},\" {he} said.",
            "{name} set out for {friend}'s house and met {friend} halfway. \"I am sorry!\" they both said at once.",
            "{next_time} {name} wrote a note: \"Dear {friend}, please forgive me. Your {name}.\"",
        ),
        (
            "\"I am sorry too, {name},\" said {friend}. \"Let us share it. Monday for you and Tuesday for me.\"",
            "{friend} hugged {name}. \"I missed you more than any {thing},\" said {friend}.",
            "they laughed, and {name} and {friend} ate {food} from one plate.",
        ),
    ),
    "a strange visitor": (
        (
            "one stormy night there was a knock at {name}'s door.",
            "one {season} evening a stranger came to {place}. {name} was the first to see {fhim}.",
            "on {town_event}, {name} noticed somebody new near {spot}.",
        ),
        (
            "it was {a fkind} with {feature}. \"Good evening,\" said the stranger. \"My name is {friend}.\"",
            "the stranger had {feature}. \"I am {friend} the {fkind},\" {fhe} said {soft}.",
            "there stood {a fkind} named {friend}, with {feature}, and {fhe} looked cold and tired.",
        ),
        (
            "{folk} whispered. \"We do not know this {friend},\" they said. \"Lock your doors!\"",
            "some of {folk} were afraid of {friend}, and nobody wanted to offer {fhim} a bed.",
            "{name} did not know what to think. {He} had never seen anyone like {friend} before.",
        ),
        (
            "but {name} was {nature}. \"You may sleep at my house, {friend},\" said {name}. \"There is {food} on the table.\"",
            "\"Come in,\" said {name}. \"Anyone who is hungry may share my {food}.\"",
            "{name} gave {friend} a cup of {drink} and a place by the fire.",
        ),
        (
            "while they ate, {friend} told {name} about {destination} and about the wide world.",
            "{friend} thanked {name} and told the most wonderful stories until midnight.",
            "\"Where do you come from, {friend}?\" asked {name}. \"From {destination},\" said {friend}, \"and from many places before that.\"",
        ),
        (
            "{next_time} {name} discovered the truth: {friend} was {trade}!",
            "in the morning {friend} opened {fhis} bag. \"I am {trade},\" {fhe} said. \"And this is for you, {name}.\"",
            "it turned out that {friend} was {trade}, and all of {folk} came to listen.",
        ),
        (
            "before leaving, {friend} gave {name} {a obj}. \"For the one who opened the door,\" said {friend}.",
            "{friend} stayed for {number} weeks, and everybody was sorry when {fhe} had to leave, most of all {name}.",
            "{friend} liked it so much that {fhe} moved into the house next to {name}.",
        ),
    ),
    "a repair": (
        (
            "one day {fault} stopped working, and {trouble}.",
            "it was {a season} day when {fault} broke. Now {trouble}, and {name} was worried.",
            "for {number} weeks {fault} had been broken. {Trouble}, and {folk} complained to {name}.",
        ),
        (
            "\"It can never be mended,\" said {folk}. But {name} wanted to try.",
            "the mayor shook his head. \"We need a new one,\" he said. \"Let me look first,\" said {name}.",
            "{name} scratched {his} head and walked around it {number} times.",
        ),
        (
            "{name} took {a obj} and a box of tools and went to {spot}.",
            "{name} asked {friend} the {fkind} for help, because {friend} was small enough to look inside.",
            "\"I will hold the light for you, {name},\" said {friend}, {a fkind} who {fhabit}.",
        ),
        (
            "first {name} oiled everything, but that did not help. {friend} the {fkind} passed {him} a hammer.",
            "{name} worked until {his} {hands} were black, and {friend} the {fkind} brought {him} {food}.",
            "\"It is no use,\" sighed {name}. \"Look once more,\" said {friend} the {fkind}. \"The answer may be quite small.\"",
        ),
        (
            "then {name} saw it: {cause}!",
            "\"{name}, look!\" cried {friend}. And really, {cause}.",
            "deep inside, {name} found the reason. {Cause}.",
        ),
        (
            "very carefully {name} put everything right. And {fault} {fworks}.",
            "{name} and {friend} fixed it together, and {next_time} {fault} {fworks}.",
            "it took {name} only a minute. Everybody held their breath, and {fault} {fworks}.",
        ),
        (
            "{folk} threw their hats into the air. \"Three cheers for {name}!\" they shouted.",
            "\"I could not have done it without {friend},\" said {name}.",
            "as a reward {name} was given {food} for a whole year, and {he} shared everything with {friend}.",
        ),
    ),
    "the garden": (
        (
            "in {season} {name} found a tiny seed near {spot}.",
            "{elder} gave {name} a single seed. \"Be patient with it,\" was the only advice.",
            "{name} traded {a obj} for a seed that was no bigger than a grain of sand.",
        ),
        (
            "{name} planted it behind the house, watered it and waited.",
            "\"It will never grow,\" laughed {friend} the {fkind}. But {name} watered it every day.",
            "{name} put the seed into the earth, sang to it and told it stories.",
        ),
        (
            "one week passed, and then another. Nothing happened, and {name} was {sad}.",
            "after {number} weeks there was still nothing to see. {friend} the {fkind} told {name} to forget about it.",
            "{name} looked every morning, but the ground stayed bare.",
        ),
        (
            "but one morning a little green leaf was looking out of the earth. \"Good morning!\" cried {name}.",
            "then it rained all night, and {next_time} {name} found a green shoot.",
            "\"{name}, come quickly!\" called {friend}. A tiny green tip had come through the soil.",
        ),
        (
            "it grew and grew. It became {a plant} as tall as a house, and {name} needed a ladder.",
            "by the end of the summer it was the largest {plant} that {folk} had ever seen.",
            "the {plant} grew so big that {name} could sit in its shade together with {friend} the {fkind}.",
        ),
        (
            "\"What will you do with it, {name}?\" asked {friend}. \"I will share it,\" said {name}.",
            "{name} invited {folk}, and there was enough for everyone, even for {friend}, who had laughed.",
            "{name} gave a part of it to {friend} and the rest to {folk}.",
        ),
        (
            "and {name} kept one seed for the next year.",
            "\"I am sorry that I laughed,\" said {friend}. {name} gave {fhim} a seed. \"Now it is your turn, {friend}.\"",
            "everybody who ate from it felt {glad}, and {name} most of all.",
        ),
    ),
    "a wish": (
        (
            "{name} had only one wish: {wish}.",
            "every night {name} lay awake and wished for the same thing: {wish}.",
            "\"If I had one wish,\" {name} used to say, \"it would be {wish}.\"",
        ),
        (
            "one {season} night {name} met {wisher} near {spot}. \"I can help you,\" it whispered.",
            "then {name} told {wisher} about it, and to {his} surprise it answered.",
            "near {spot}, {name} found {wisher}. \"What do you wish for, {name}?\" it asked.",
        ),
        (
            "\"But it will cost {price},\" said the voice. \"I will pay it,\" said {name}.",
            "\"First you must bring me {price},\" it said. {name} nodded.",
            "the price was {price}, and {name} thought about it for a long time.",
        ),
        (
            "on the way home {name} met {friend} the {fkind}, who was hungry. {name} gave {friend} {his} {food}.",
            "just then {friend} the {fkind} came by with a heavy load, and {name} helped to carry it to {spot2}.",
            "at {spot2} {name} saw {friend}, {a fkind} who was crying. {name} sat down beside {fhim}.",
        ),
        (
            "\"How can I thank you, {name}?\" asked {friend}. {name} told {fhim} about the wish.",
            "\"You are very kind,\" said {friend}. \"What do you wish for, {name}?\" And {name} told {fhim}.",
            "{friend} listened to {name} and began to smile. \"I think I can help you,\" said {friend}.",
        ),
        (
            "and so, quite without magic, {friend} helped {name}, and the wish came true.",
            "it did not happen at once, and it happened differently from what {name} had imagined, but it happened.",
            "{next_time} {friend} came back and took {name} along. The wish had come true!",
        ),
        (
            "\"Was it magic?\" asked {name}. \"No,\" said {friend}, \"it was friendship.\"",
            "{name} wanted to thank {wisher}, but there was only the wind near {spot}.",
            "now {name} had no wish left, except that {friend} would stay.",
        ),
    ),
    "the soup": (
        (
            "it was a hard {season}, and there was almost nothing to eat {in_place}. {name} had one single onion.",
            "{name} wanted to cook {food} for {town_event}, but the cupboard was empty.",
            "one day {name} was hungry, and all that {he} had was an empty pot and {a obj}.",
        ),
        (
            "\"I will begin, and we will see,\" said {name}. {He} filled the biggest pot with water.",
            "so {name} carried the pot to {spot}, made a fire and began to stir.",
            "{name} set the pot in the middle of {spot} and hummed a tune.",
        ),
        (
            "{friend} the {fkind} came by. \"What are you cooking, {name}?\" asked {friend}.",
            "the steam tickled the nose of {friend} the {fkind}. \"That smells interesting, {name},\" {fhe} said.",
            "first came {friend}, {a fkind} who {fhabit}. \"May I look into the pot, {name}?\"",
        ),
        (
            "\"The best meal in the world,\" said {name}, \"but it still needs a carrot.\" So {friend} ran to fetch one.",
            "\"It needs only a little salt,\" said {name}. \"I have salt!\" said {friend}.",
            "\"A potato would make it perfect,\" said {name}, and {friend} found {number} potatoes at home.",
        ),
        (
            "then {folk} brought cabbages and beans, butter and herbs, and {name} stirred and stirred.",
            "one brought {fruit}, another brought {fruit*}, and {friend} brought a whole cheese.",
            "{elder} brought a handful of herbs, and {friend} set the table for everyone.",
        ),
        (
            "in the end it was enough for all, and {name} filled every bowl to the brim.",
            "nobody had ever tasted anything so good. Even {friend} had {number} bowls.",
            "they ate until the stars came out, and {friend} played music for {name} and the others.",
        ),
        (
            "\"What was the secret, {name}?\" asked {friend}. \"Everybody gave a little,\" said {name}.",
            "\"And it all began with {name},\" said {friend}, and raised a cup of {drink}.",
            "{name} washed the pot and was {glad}, for nobody went to bed hungry.",
        ),
    ),
    "being afraid": (
        (
            "{name} was afraid of only one thing: {fear}.",
            "nobody knew that {name} was afraid of {fear}.",
            "{name} was {nature}, but {fear} made {his} knees shake.",
        ),
        (
            "one evening {friend} the {fkind} was in trouble near {spot}, and {name} was the only one who could help.",
            "one day {name}'s {obj} was left behind near {spot}, in just the place that {he} feared. Only {friend} the {fkind} offered to come along.",
            "then {friend} the {fkind} asked, \"Will you come with me to {spot}, {name}?\" And {name} turned pale.",
        ),
        (
            "\"I cannot,\" thought {name}. \"Not because of {fear}!\"",
            "{name}'s heart was beating like a drum. {He} took one step, and then stopped.",
            "{name} told {friend} the {fkind} the truth. \"I am afraid of {fear},\" {he} whispered.",
        ),
        (
            "\"Everybody is afraid of something,\" said {friend}. \"I am afraid of geese.\" {name} had to laugh.",
            "{friend} did not laugh. \"Take my hand, {name},\" said {friend}. \"We will go slowly.\"",
            "{elder} had once told {name}: \"Being brave means being afraid and going anyway.\"",
        ),
        (
            "so {name} counted to {number}, held {his} breath and went on.",
            "step by step {name} went forward, and {friend} stayed close behind {him}.",
            "{name} lit a candle, sang a little song and walked on next to {friend}.",
        ),
        (
            "and what did {name} find? Nothing terrible at all, only {a bird} that was just as frightened.",
            "it was not half as bad as {name} had thought. \"Is that all?\" {he} asked.",
            "in the end there was only {a stray}, and it was glad to see {name} and {friend}.",
        ),
        (
            "\"You did it, {name}!\" said {friend}. \"{Fear} cannot hurt you now.\"",
            "{name} was still a little afraid sometimes, but then {he} thought of {friend} and went on.",
            "\"Tomorrow I will help you with the geese, {friend},\" said {name}.",
        ),
    ),
    "a lost little one": (
        (
            "one {season} day, near {spot}, {name} heard a tiny voice crying. It was {a stray}.",
            "on the way to {spot}, {name} found {a stray} sitting all alone in the grass.",
            "one rainy morning {a stray} was sitting in front of {name}'s door.",
        ),
        (
            "the {stray} was cold and hungry. \"I have lost my mother,\" it told {name}.",
            "\"Who are you?\" asked {name} {soft}. The {stray} only shivered.",
            "{name} wrapped the {stray} in a scarf and gave it some warm milk.",
        ),
        (
            "\"I will bring you home,\" said {name}. But where was home?",
            "{name} promised to find the mother of the {stray} before dark.",
            "\"Do not cry,\" said {name}. \"I know somebody who can help us.\"",
        ),
        (
            "{name} carried the {stray} to {friend} the {fkind}, who {fhabit}. \"Do you know it, {friend}?\"",
            "first they asked at {spot2}, and then they asked {friend} the {fkind}. {friend} listened to {name} carefully.",
            "at {spot2} {name} met {friend}, {a fkind} with good ears. \"I hear somebody calling far away,\" said {friend}.",
        ),
        (
            "{friend} led {name} through {spot} and past a tall {tree}.",
            "{name}, {friend} and the {stray} walked on and on, and called in every direction.",
            "\"Look, {name}, there are tracks!\" said {friend}. They followed them up the hill.",
        ),
        (
            "and there, under {a tree}, was the mother. She had been looking for her {stray} all day.",
            "suddenly the {stray} jumped out of {name}'s arms and ran to its mother.",
            "just before sunset {name} and {friend} found the whole family, {number} brothers and sisters.",
        ),
        (
            "\"Thank you, {name}! Thank you, {friend}!\" said the mother with tears in her eyes.",
            "the {stray} visited {name} every week after that, and {friend} came along.",
            "{name} waved for a long time, a little {sad} and very {glad} at once.",
        ),
    ),
    "the map": (
        (
            "one day {name} found an old map {hiding}.",
            "in a dusty book {name} discovered a map with a red cross on it.",
            "a bottle with a map in it was lying near {spot}, and {name} pulled out the cork.",
        ),
        (
            "\"A treasure!\" cried {name}, and ran to tell {friend} the {fkind}.",
            "{name} showed it to {friend}, {a fkind} who {fhabit}. \"We must go at once, {name}!\" said {friend}.",
            "{name} could not read the strange letters, but {friend} the {fkind} could.",
        ),
        (
            "\"Start at {spot},\" read {friend}, \"and take {number} steps towards {spot2}.\" {name} counted aloud.",
            "the map led {name} and {friend} past {spot}, around {spot2} and under {a tree}.",
            "they took {a obj}, a shovel and some {food}, and {name} led the way.",
        ),
        (
            "twice {name} and {friend} lost their way, and once they dug in the wrong place and found a cold spring.",
            "{name} dug until {his} {hands} hurt. {friend} dug too, but there was only sand.",
            "\"Perhaps it is only a joke,\" said {friend}. But {name} did not want to give up.",
        ),
        (
            "then the shovel hit something hard. {name} and {friend} looked at each other.",
            "suddenly {name} heard a hollow sound. \"Here it is!\" {he} shouted.",
            "just as the sun went down, {name} saw a wooden lid in the earth.",
        ),
        (
            "inside there was no gold. There was {treasure}, and {name} thought that was even better.",
            "{name} lifted the lid, and there lay {treasure}. \"How beautiful!\" whispered {friend}.",
            "it was {treasure}. On a slip of paper {name} read: \"For those who look together.\"",
        ),
        (
            "{name} and {friend} shared it with {folk}, for that is what treasures are for.",
            "\"The digging was the best part,\" said {friend}, and {name} agreed.",
            "then {name} and {friend} drew a new map and hid a treasure of their own.",
        ),
    ),
    "winter bread": (
        (
            "the {season} had been long, and {name} had only one loaf left.",
            "{name} had worked hard, and the pantry was full of {food}.",
            "one cold evening {name} had just sat down to eat {food}.",
        ),
        (
            "then {friend} the {fkind} came to the door, thin and hungry. \"I have eaten nothing for {number} days, {name},\" {fhe} said.",
            "outside in the cold stood {friend} the {fkind}, who had sung all summer and saved nothing.",
            "{name} saw {friend}, {a fkind} who {fhabit}, looking in through the window.",
        ),
        (
            "\"If I give it away, what will I eat tomorrow?\" thought {name}.",
            "for a moment {name} wanted to close the curtains.",
            "{name} looked at the plate, and then at {friend}, and then at the plate again.",
        ),
        (
            "but then {name} remembered how {elder} had once helped {him}.",
            "but {name} could not enjoy a meal while {friend} was hungry.",
            "then {name} heard the wind howl, and {he} opened the door wide.",
        ),
        (
            "\"Come in, {friend},\" said {name}. \"Half for you and half for me.\"",
            "{name} cut everything into two equal parts, and {friend} said, \"Thank you,\" {number} times.",
            "{name} put a second plate on the table, and {friend} ate until {fhis} cheeks were red.",
        ),
        (
            "in return {friend} sang an old song, and the long evening was suddenly short for {name}.",
            "{friend} stayed until spring, chopped wood for {name} and told stories.",
            "{next_time} {friend} showed {name} a place near {spot} where the first berries grew.",
        ),
        (
            "when {season} came again, {friend} brought {name} a whole sack of {fruit}.",
            "\"What you share comes back to you, {name},\" said {friend}.",
            "and there was always enough for {name} and {friend} after that.",
        ),
    ),
    "the song": (
        (
            "{name} loved to sing, but {he} sang only when nobody was listening.",
            "every evening {name} hummed old melodies near {spot}, although nobody came to hear it.",
            "{name} knew a song that {his} grandmother had taught {him}.",
        ),
        (
            "\"My voice is too small,\" said {name} to {friend} the {fkind}.",
            "one day {friend} the {fkind} heard it from behind {a tree}. \"Was that you, {name}?\" asked {friend}.",
            "{friend}, {a fkind} who {fhabit}, begged {name} to sing on {town_event}. {name} shook {his} head.",
        ),
        (
            "then a heavy fog came over {place}. {Folk} were outside and could not find the way home.",
            "that {season} everyone {in_place} was {sad}, and nobody knew why.",
            "on {town_event} the musicians did not arrive, and {folk} were very disappointed.",
        ),
        (
            "\"Sing, {name}!\" said {friend}. \"They will follow your voice.\"",
            "\"Now is the time, {name},\" whispered {friend}. \"I will stand next to you.\"",
            "{friend} took {name} by the hand and led {him} to {spot2}.",
        ),
        (
            "{name} closed {his} eyes and began, at first very quietly and then louder and louder.",
            "the first note trembled. But {friend} hummed along, and {name} grew braver.",
            "{name} thought of {a bird} in the morning and sang with all {his} heart.",
        ),
        (
            "one after another {folk} came closer, and some of them wiped their eyes.",
            "everyone stood still. Even {a bird} on the roof listened to {name}.",
            "soon all of {folk} were singing with {name}, and the sound filled the whole of {place}.",
        ),
        (
            "\"Your voice is not small at all, {name},\" said {friend}.",
            "after that {name} sang every evening, and {friend} never missed a single song.",
            "{folk} thanked {name} with flowers and {food}.",
        ),
    ),
    "the invention": (
        (
            "{name} wanted to build {machine}.",
            "in the shed {name} was working on something strange: {machine}.",
            "\"I am going to build {machine},\" {name} told everyone {in_place}.",
        ),
        (
            "{name} collected {part}, {part*} and a piece of string.",
            "for {number} weeks there was hammering and sawing, and {name} hardly slept.",
            "\"It will never work, {name},\" said {folk}, and they shook their heads.",
        ),
        (
            "the first try ended with a loud bang, and {name} was covered with soot.",
            "on the first day it rolled into {spot}, and {name} had to fish it out.",
            "at first nothing moved. Then everything moved at once, and {name} had to jump aside.",
        ),
        (
            "{friend} the {fkind} looked at the pieces. \"Why did it fail, {name}?\" asked {friend}.",
            "{friend}, {a fkind} who {fhabit}, brought {drink}. \"Tell me about it, {name},\" {fhe} said.",
            "\"May I help you, {name}?\" asked {friend} the {fkind}. \"I am good at small screws.\"",
        ),
        (
            "they thought about it together, and {friend} noticed that one wheel was upside down.",
            "{name} drew a new plan, and {friend} held the other end of the ruler.",
            "\"What if we use {a obj}?\" said {friend}. {name} jumped up. \"That is it, {friend}!\"",
        ),
        (
            "{next_time} {name} pulled the lever. It hissed, it hummed, and it worked!",
            "on {town_event} {name} showed it to {folk}, and this time everything went well.",
            "the second try was better, and the third was perfect. {name} danced around {spot2} with {friend}.",
        ),
        (
            "\"Every failure was a step of the ladder,\" said {name} to {friend}.",
            "{folk} all wanted to have one, and {name} and {friend} were busy until {season}.",
            "\"What shall we build next, {name}?\" asked {friend}.",
        ),
    ),
    "the forgotten birthday": (
        (
            "it was {name}'s birthday, but nobody seemed to remember it.",
            "{name} woke up {glad}, because it was {his} birthday.",
            "\"Today I am a year older,\" thought {name}, and put on {his} best clothes.",
        ),
        (
            "at {spot} {name} met {friend} the {fkind}. \"I have no time, {name},\" said {friend}, and hurried on.",
            "{folk} were all busy. \"Not now, {name},\" they said, and closed their doors.",
            "{name} waited for a letter, but none came. Even {friend} the {fkind} walked past the house.",
        ),
        (
            "{name} sat down near {spot2} and felt {sad}.",
            "\"They have forgotten me,\" said {name} to {a bird} in the {tree}.",
            "{name} went home and ate {food} all alone.",
        ),
        (
            "{quiet_time} there was a whisper behind the door. {name} opened it slowly.",
            "then {friend} the {fkind} called, \"{name}, come quickly to {spot}! Something has happened!\"",
            "when it grew dark, {name} saw a little light near {spot}, and then another.",
        ),
        (
            "\"Surprise!\" shouted {friend} and all of {folk}. There were lanterns in every tree, and {name} could not speak.",
            "there stood {friend} with a cake, and {folk} sang a song for {name}.",
            "everyone was there. {friend} had planned it in secret for {number} weeks, only for {name}.",
        ),
        (
            "{friend} gave {name} {a obj}. It {objdoes}.",
            "\"This is for you, {name},\" said {friend}, and gave {him} {present}.",
            "they had {food} and {drink}, and {friend} gave {name} the biggest piece of cake.",
        ),
        (
            "\"I thought you had forgotten me,\" said {name}. \"Never,\" said {friend}.",
            "{name} laughed and cried at once and danced with {friend} until midnight.",
            "\"How could anybody forget you, {name}?\" asked {friend}.",
        ),
    ),
    "the noise at night": (
        (
            "one night {name} was woken by {sound}.",
            "for {number} nights {name} had heard {sound} outside the window.",
            "it was almost midnight when {name} heard {sound} near {spot}.",
        ),
        (
            "\"Who is there?\" called {name}. Nobody answered.",
            "{name} pulled the blanket over {his} head and counted to {number}.",
            "\"It must be a ghost,\" thought {name}, and {his} {hands} grew cold.",
        ),
        (
            "{next_time} {name} told {friend} the {fkind} about it. \"We will find out together,\" said {friend}.",
            "{name} ran next door to {friend}, {a fkind} who {fhabit}. \"Did you hear it too, {friend}?\"",
            "{friend} the {fkind} came running with {a obj}. \"I heard it as well, {name},\" said {friend}.",
        ),
        (
            "that night {name} and {friend} hid near {spot2} and waited. It was dark, and {night_sky}.",
            "on tiptoe {name} and {friend} crept past {spot}. There it was again, {sound}!",
            "they drank {drink} to stay awake. At last {name} heard it again.",
        ),
        (
            "\"Now!\" whispered {friend}, and {name} lifted the light. It was only {maker}!",
            "{name} took all {his} courage and looked around the corner. And there was {maker}.",
            "{friend} began to giggle. \"Here is your ghost, {name},\" {fhe} said. It was {maker}.",
        ),
        (
            "{name} laughed until {his} sides hurt, and {friend} laughed with {him}.",
            "\"So much fear about something so small,\" said {name} to {friend}.",
            "{name} and {friend} went home and ate {food} in the middle of the night.",
        ),
    ),
    "the message": (
        (
            "one day {name} found a bottle with a letter in it near {spot}.",
            "a white bird dropped a slip of paper in front of {name}'s feet.",
            "between the pages of a borrowed book {name} found a letter.",
        ),
        (
            "\"Whoever finds this,\" it said, \"please write to me. I am alone. My name is {friend}.\" {name} read it twice.",
            "it came from {friend}, {a fkind} who lived far away and had nobody to talk to. {name} was {sad} for {fhim}.",
            "\"I would like to have a friend,\" {name} read. \"Yours, {friend} the {fkind}.\"",
        ),
        (
            "{name} sat down at once and wrote an answer with {his} best pen.",
            "so {name} wrote about {place}, about {spot} and about {food}.",
            "\"Dear {friend},\" wrote {name}, \"now you have a friend. Tell me about yourself.\"",
        ),
        (
            "{name} waited for {number} weeks. Every day {he} ran to {spot2} to look.",
            "the whole {season} went by, and {name} heard nothing from {friend}.",
            "\"Perhaps my letter was lost,\" thought {name}, and wrote a second one.",
        ),
        (
            "then at last an answer came. \"Dear {name},\" it began, \"you have made me so happy.\"",
            "one morning there was a parcel at the door. {friend} had sent {name} {a obj}.",
            "and then {friend} wrote back, {number} whole pages, and {name} read them all before breakfast.",
        ),
        (
            "after that {name} and {friend} wrote to each other every week.",
            "in the {season*} {friend} took a boat and came to visit {name}. They knew each other at once.",
            "one day {name} packed a bag and travelled to {friend}, and it was as if they had always known each other.",
        ),
        (
            "\"And all because of one little letter,\" said {friend}. {name} nodded.",
            "{name} kept every letter from {friend} in a box under the bed.",
            "\"You were never really alone, {friend},\" said {name}. \"We had only not met yet.\"",
        ),
    ),
    "the heavy load": (
        (
            "{name} had to bring a cart full of {fruit} to {spot} before evening.",
            "{elder} asked {name} to carry {number} sacks of flour to {spot}.",
            "one hot day {name} was pulling a heavy cart with {a obj} on top.",
        ),
        (
            "halfway up the hill a wheel got stuck, and {name} could not move it.",
            "it was too heavy for one {kind} alone, and {name} had to stop every few steps.",
            "then the road became steep, and {name} was out of breath.",
        ),
        (
            "a rich merchant rode by and did not even look at {name}.",
            "\"I have no time,\" said one of {folk}, and left {name} standing there.",
            "{name} was too proud to ask for help, and tried again alone.",
        ),
        (
            "then {friend} the {fkind} came along. \"Let me help you, {name},\" said {friend}.",
            "\"You look tired, {name},\" said {friend}, {a fkind} who {fhabit}. \"Shall I push?\"",
            "{friend} the {fkind} was small, and {name} smiled. \"Can you really help me, {friend}?\"",
        ),
        (
            "{name} pulled, {friend} pushed, and slowly the wheels began to turn.",
            "\"One, two, three!\" counted {friend}, and with a jerk {name} came free.",
            "{friend} put a branch under the wheel, and {name} pulled with both {hands}.",
        ),
        (
            "they reached {spot} just as the sun was setting. \"We did it!\" said {name}.",
            "everyone at {spot} was surprised that {name} had come in time. \"I had {friend},\" said {name}.",
            "as thanks {name} shared {food} with {friend}, and they rested under {a tree}.",
        ),
        (
            "\"Next time ask me first, {name},\" said {friend}.",
            "since then {name} and {friend} have always pulled the cart together.",
            "\"Half the load is only half as heavy,\" said {name}, and {friend} laughed.",
        ),
    ),
}

LETTER_OPENINGS = (
    "how are you? I hope that you are well.", "thank you so much for {thanks}.", "I have been thinking of you all week.",
    "it has been a fine {season} here.", "I am writing to you from {spot}.", "at last I have found time to write to you.",
    "it was so good to hear from you.", "I hope this letter finds you in good health.", "your last letter made me very {glad}.",
    "we all miss you very much.", "today I must tell you something.", "I am sitting by the window with a cup of {drink}.",
)
LETTER_NEWS = (
    "you will be surprised to hear that {news}.", "the big news is that {news}.", "imagine, {news}!", "since you left, {news}.",
    "last {weekday}, {folk} had a party, and we ate {food}.", "on {weekday} I went to {spot} and saw {a bird}.",
    "my favourite subject at school is {subject} now.", "yesterday I found {a obj} {hiding}.",
    "the whole house smells of {smell}, because I have made {food}.", "my {relative} says that {lesson}.",
    "the {flower} in front of our house is more beautiful than ever.", "I have learned to {do}, but the first time I {fails}.",
    "we have had {storm}, but nobody was hurt.", "everybody here is waiting for {town_event}.",
)
LETTER_REQUESTS = (
    "would you like to visit us in {season}? We could {plan}.", "please come on {weekday}, and we will {plan}.",
    "when you come, we will {plan} and {plan*}.", "do you still have the {obj}? I think of it often.",
    "please write soon and tell me everything.", "could you send me your recipe for {food}?",
    "give my love to your {relative}.", "I am sending you {a obj}. I hope that you like it.",
    "do you remember how we used to {plan}?", "please do not forget to water the {flower}.",
)
LETTER_CLOSINGS = (
    "Yours, {name}", "Your friend, {name}", "With love, {name}", "Best wishes, {name}", "Your loving {relative*}, {name}",
    "See you soon, {name}", "Warm greetings, {name}", "Yours truly, {name}", "With many kisses, {name}", "Yours always, {name}",
)
