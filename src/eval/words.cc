#include "eval/words.h"

#include <algorithm>

#include "base/error.h"
#include "text/utf8.h"

namespace kvasir {

namespace {

using Words = std::vector<std::string_view>;

// Items between `separator`s.
Words Split(std::string_view text, char separator) {
  Words items;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (end > 0) items.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return items;
}

constexpr std::string_view kAdjectives =
    "able agile amber ample ancient arctic ashen autumn azure bitter blank bold brave brief bright "
    "brisk broad bronze calm candid careful casual cheap clean clear clever cloudy coarse "
    "coral cosmic crimson crisp curious curved dapper daring dear deep dense dusty eager early "
    "earnest easy elder elegant empty even exact faint fair famous fancy feral fierce final fine "
    "firm flat fluffy fond formal fragile frank fresh frosty frozen frugal gentle giant gilded "
    "glad gloomy golden graceful grand grave grim gritty hasty heavy hidden hollow honest humble "
    "hungry icy idle indigo inner ivory jolly keen kind lanky large late lavish lazy light limber "
    "lively local lofty lone lost loud loyal lucky lunar mellow merry mighty mild misty modest "
    "mossy muddy narrow native neat nimble noble noisy northern novel odd olive open orange outer "
    "pale patient placid plain pleasant polar polite prime proud pure quaint quick quiet rapid "
    "rare raw regal remote rich rigid ripe robust rocky rosy rough round royal rural rustic rusty "
    "sacred salty sandy scarlet serene shady sharp shiny shy silent silky silver simple sleek "
    "sleepy slim slow small smart smooth snowy sober soft solar solemn solid sour spare spicy "
    "stark steady steep sterile stiff stormy stout strict sturdy subtle sudden sunny supple "
    "sweet swift tacit tall tame tardy tart tender thick thin thirsty tidy timid tiny tough "
    "tranquil "
    "upper urban vague valid vast vivid warm wary weary western wide wild windy wise witty "
    "wooden woolen young zealous";

constexpr std::string_view kNouns =
    "acorn anchor ankle apple apron arrow atlas badge bakery banjo barley barn barrel basil basket "
    "beacon beaver bell bench berry blanket boat bottle boulder branch bread brick bridge broom "
    "bucket button cabin cable cactus camel candle canoe canvas canyon carpet carrot castle cattle "
    "cave cedar cellar chain chair chalk cherry chest chimney circus clay cliff clock cloud clover "
    "coat cobra coin collar comet compass copper cotton cradle crane crate crow crown cup curtain "
    "daisy desert desk dolphin donkey door dragon drawer drum eagle easel elbow ember engine "
    "fabric "
    "falcon farm feather fence fern ferry fiddle field flag flask flute forest fossil fountain fox "
    "frame galaxy garden garlic gate ginger glacier glass globe glove goat goose granite grape "
    "gravel "
    "guitar hammer harbor harp hatchet hazel helmet heron hill hinge honey hoof horizon horn hotel "
    "island ivy jacket jar jasmine jewel jigsaw jungle kayak kettle kite kitten ladder lagoon lake "
    "lamp lantern laurel leaf lemon lens lever lighthouse lily lizard lobster locket loom magnet "
    "mango maple marble market marsh meadow melon mill mirror mitten monkey moon moth mountain "
    "mushroom napkin needle nest nickel oasis oatmeal ocean octopus onion orchard orchid otter "
    "oven "
    "owl oyster paddle paint palace panda paper parrot pasture peach pearl pebble pelican pencil "
    "pepper piano pigeon pillow pine pirate planet plank plaza plum pocket pond poppy porch potato "
    "prairie prism pumpkin puppet puzzle quarry quartz quilt rabbit radish raft rail rainbow raven "
    "reef ribbon ridge river robin rocket roof rope rose saddle sailor salmon sandal satchel "
    "saucer "
    "scarf school shed shell shield shovel shrub silk sketch sled slipper snail sparrow spider "
    "spoon "
    "spruce squirrel stable staircase statue stove straw stream sugar sunset swan sword table "
    "talon "
    "teapot temple tent thimble thistle thorn ticket tiger timber toast tomato tower train trumpet "
    "tulip tunnel turnip turtle umbrella urn valley vase velvet village vine violin volcano wagon "
    "walnut walrus water wheat wheel whistle willow window winter wizard wolf yarn zebra zipper";

constexpr std::string_view kCities =
    "Amsterdam Ankara Athens Auckland Baghdad Bangkok Barcelona Belgrade Berlin Bogota Boston "
    "Bratislava Brussels Bucharest Budapest Cairo Calgary Caracas Casablanca Chicago Copenhagen "
    "Dakar Dallas Damascus Denver Dublin Durban Edinburgh Florence Frankfurt Geneva Glasgow "
    "Hamburg "
    "Hanoi Havana Helsinki Istanbul Jakarta Karachi Kyoto Lagos Leipzig Lima Lisbon Ljubljana "
    "London "
    "Lyon Madrid Manila Marseille Melbourne Miami Milan Montreal Moscow Mumbai Munich Nairobi "
    "Naples "
    "Oslo Ottawa Paris Porto Prague Quito Reykjavik Riga Rome Rotterdam Santiago Sarajevo Seattle "
    "Seoul Shanghai Sofia Stockholm Sydney Tallinn Tehran Tokyo Toronto Tunis Turin Valencia "
    "Venice "
    "Vienna Vilnius Warsaw Zagreb Zurich";

// Parts of the built-in prose.
constexpr std::string_view kPeople =
    "actor|apprentice|archer|baker|barber|blacksmith|boatman|bookseller|builder|butcher|captain|"
    "carpenter|cook|dancer|doctor|driver|farmer|ferryman|fisherman|gardener|glazier|grandmother|"
    "guard|guide|hunter|innkeeper|judge|librarian|mayor|merchant|midwife|miller|miner|musician|"
    "neighbour|painter|poet|potter|printer|sailor|shepherd|singer|soldier|student|surgeon|tailor|"
    "teacher|traveller|watchmaker|weaver|widow";
constexpr std::string_view kActions =
    "admired|borrowed|bought|broke|carried|carved|cleaned|collected|covered|described|discovered|"
    "drew|dropped|examined|filled|found|guarded|hid|ignored|lent|lifted|lost|measured|mended|moved|"
    "noticed|offered|packed|painted|polished|praised|protected|repaired|returned|sketched|sold|"
    "studied|touched|traded|washed|weighed|wrapped";
constexpr std::string_view kThings =
    "anvil|barrel of cider|basket of pears|bell|bicycle|blanket|bowl of soup|bundle of letters|"
    "candlestick|cart|clay jug|clock|cloak|coil of rope|compass|copper pan|crate of "
    "apples|cupboard|"
    "drum|fishing net|flute|hammer|iron gate|kettle|ladder|lantern|leather bag|lute|map|mirror|"
    "oak table|painting|pair of boots|parcel|piece of cloth|pillow|plough|pocket watch|rowing boat|"
    "saddle|sack of flour|sail|silver spoon|statue|stove|telescope|toolbox|umbrella|violin|wagon|"
    "wheelbarrow|wooden horse";
constexpr std::string_view kDeeds =
    "fell asleep|began to laugh|climbed the stairs|counted the sheep|could not sleep|felt at home|"
    "forgot the time|hummed a tune|hurried away|kept silent|left without a word|lit a fire|"
    "listened to the rain|looked at the sky|made a pot of tea|nodded and smiled|planted beans|"
    "played cards|prayed for wind|read the newspaper|rested for an hour|sat down|shut the door|"
    "shook hands with everyone|sharpened the knives|stood still|swept the floor|talked about "
    "politics|told an old joke|walked on|waited for the ferry|watched the birds|went home early|"
    "wrote a long letter";
constexpr std::string_view kPlaces =
    "at the edge of the forest|at the market|at the railway station|behind the barn|behind the "
    "chapel|below the castle|beside the canal|beside the mill|by the well|in a narrow lane|in the "
    "attic|in the courtyard|in the empty theatre|in the garden|in the kitchen|in the library|in "
    "the "
    "old harbour|in the orchard|in the valley|near the bridge|near the lighthouse|near the school|"
    "on the beach|on the ferry|on the hill|on the north road|on the roof|on the town "
    "square|outside "
    "the inn|outside the village|under the arches|under the old oak";
constexpr std::string_view kTimes =
    "a week later|after breakfast|after the storm|all through the winter|at dawn|at dusk|at "
    "midnight|"
    "at noon|before the harvest|during the festival|early in spring|every now and then|in the "
    "evening|in those days|just before sunset|late in the autumn|long ago|most afternoons|on a "
    "cold "
    "morning|on a quiet Sunday|on market day|once again|one summer night|some years ago|that same "
    "day|the next morning|towards the end of the month|when the bells rang";
constexpr std::string_view kQualities =
    "careful|cheerful|clever|clumsy|curious|elderly|famous|friendly|gentle|grumpy|hungry|lonely|"
    "modest|nervous|patient|polite|proud|quiet|shy|sleepy|stubborn|tall|tired|young";
constexpr std::string_view kLooks =
    "battered|beautiful|broken|cheap|dusty|faded|foreign|heavy|large|light|little|narrow|new|odd|"
    "old|painted|plain|polished|rusty|second|simple|small|sturdy|worn";
constexpr std::string_view kWeather =
    "the wind had turned|the rain had stopped|the days were getting longer|the river had "
    "risen|the "
    "snow had come too early|the fog hid the rooftops|the sun was hardly warm|the leaves were "
    "falling|the nights were cold|the roads were dry again|thunder rolled over the hills|the frost "
    "had killed the roses|the sea was calm|the clouds hung low";
constexpr std::string_view kRemarks =
    "nobody was surprised|everyone agreed|the dogs began to bark|it hardly mattered|the children "
    "clapped|there was nothing left to say|the work went on|few people noticed|that was the custom|"
    "the reason was soon forgotten|the guests went on talking|it cost almost nothing";

struct Grammar {
  Words people = Split(kPeople, '|'), actions = Split(kActions, '|'), things = Split(kThings, '|'),
        deeds = Split(kDeeds, '|'), places = Split(kPlaces, '|'), times = Split(kTimes, '|'),
        qualities = Split(kQualities, '|'), looks = Split(kLooks, '|'),
        weather = Split(kWeather, '|'), remarks = Split(kRemarks, '|');
};

// A rule is a sentence in which a letter in angle brackets stands for a part.
constexpr std::string_view kRules[] = {
    "<P> <A> <T> <L>.",
    "<M>, <P> <A> <T>.",
    "<M>, <P> and <P> <D> <L>.",
    "<P> <D>, because <W>.",
    "<P> <D> while <P> <A> <T>.",
    "When <W>, <P> <A> <T> and <D>.",
    "<T> stood <L>, but <P> never <A> it.",
    "It was said <L> that <P> <A> <T>.",
    "<P> believed that <W>, and <R>.",
    "<M>, <W>, and <P> <D>.",
    "As soon as <P> <A> <T>, <R>.",
    "<L>, <P> <D>, and <R>.",
    "<P>, who <A> <T> <M>, <D>.",
    "Although <W>, <P> <D> <L>.",
};

std::string Part(char symbol, const Grammar& grammar, Generator& generator) {
  const auto noun = [&](const Words& adjectives, const Words& nouns) {
    const bool plain = generator.Below(2) == 0;
    std::string text = "the ";
    if (!plain) text.append(generator.OneOf(adjectives)).append(" ");
    return text.append(generator.OneOf(nouns));
  };
  switch (symbol) {
    case 'P':
      return noun(grammar.qualities, grammar.people);
    case 'T':
      return noun(grammar.looks, grammar.things);
    case 'A':
      return std::string(generator.OneOf(grammar.actions));
    case 'D':
      return std::string(generator.OneOf(grammar.deeds));
    case 'L':
      return std::string(generator.OneOf(grammar.places));
    case 'M':
      return std::string(generator.OneOf(grammar.times));
    case 'W':
      return std::string(generator.OneOf(grammar.weather));
    default:
      CHECK(symbol == 'R');
      return std::string(generator.OneOf(grammar.remarks));
  }
}

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f'; }
bool EndsSentence(char c) { return c == '.' || c == '!' || c == '?'; }

void CheckUtf8(std::string_view text, const std::string& where) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8CharLength(text.substr(i));
    if (length == 0) Fail(Code::kInvalid, "{}: byte {} is no UTF-8", where, i);
    i += length;
  }
}

}  // namespace

std::span<const std::string_view> Adjectives() {
  static const Words words = Split(kAdjectives, ' ');
  return words;
}

std::span<const std::string_view> Nouns() {
  static const Words words = Split(kNouns, ' ');
  return words;
}

std::span<const std::string_view> Cities() {
  static const Words words = Split(kCities, ' ');
  return words;
}

uint64_t WordKeyCount() { return Adjectives().size() * Nouns().size(); }

std::string WordKey(uint64_t number) {
  CHECK(number < WordKeyCount());
  return fmt::format("{}-{}", Adjectives()[number / Nouns().size()],
                     Nouns()[number % Nouns().size()]);
}

const std::string_view kNoiseLine =
    "The river is wide. The stones are old. The wind blows cold. We walk along. The road goes on.";

std::string ProseSentence(Generator& generator) {
  static const Grammar grammar;
  std::string sentence;
  std::string_view rule = generator.OneOf(kRules);
  while (!rule.empty()) {
    if (rule[0] == '<') {
      sentence += Part(rule[1], grammar, generator);
      rule.remove_prefix(3);
    } else {
      sentence += rule[0];
      rule.remove_prefix(1);
    }
  }
  if (sentence[0] >= 'a' && sentence[0] <= 'z') sentence[0] -= 'a' - 'A';
  return sentence;
}

Prose::Prose(std::string_view text, const std::string& where) {
  CheckUtf8(text, where);
  std::string sentence;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!IsSpace(text[i])) {
      sentence += text[i];
      continue;
    }
    if (sentence.empty() || sentence.back() == ' ') continue;
    if (EndsSentence(sentence.back())) {
      sentences_.push_back(std::move(sentence));
      sentence.clear();
    } else {
      sentence += ' ';
    }
  }
  if (!sentence.empty() && sentence != " ") sentences_.push_back(std::move(sentence));
  if (sentences_.empty()) Fail(Code::kInvalid, "{}: no sentence in it", where);
}

std::vector<std::string> Prose::Sentences(uint64_t count, Generator& generator) const {
  std::vector<std::string> sentences;
  sentences.reserve(count);
  if (sentences_.empty()) {
    for (uint64_t i = 0; i < count; ++i) sentences.push_back(ProseSentence(generator));
    return sentences;
  }
  const uint64_t first = generator.Below(sentences_.size());
  for (uint64_t i = 0; i < count; ++i) {
    sentences.push_back(sentences_[(first + i) % sentences_.size()]);
  }
  return sentences;
}

}  // namespace kvasir
