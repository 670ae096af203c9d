#!/usr/bin/env python3
"""Writes a long document and questions about it: the chronicle of Aldermoor, an invented town.

The text is generated, the same for the same seed: one paragraph a year, with facts worked in at known places, and
a question for each fact with the answer that a reader would find.

  chronicle.py --out DIR [--seed 7] [--years 72] [--facts 24]

writes DIR/chronicle.txt, DIR/questions.txt (one a line) and DIR/facts.json (question, answer, and
where in the text the fact stands, as a fraction).
"""
import argparse
import json
import os
import random

FAMILIES = ["Harrow", "Pell", "Winslade", "Marsh", "Tolliver", "Crane", "Oakes", "Bramley", "Thorne", "Fenwick",
            "Ashdown", "Quill", "Sedge", "Lorimer", "Hale", "Birch"]
FIRST = ["Agnes", "Thomas", "Edith", "Walter", "Martha", "Samuel", "Clara", "Henry", "Ruth", "George", "Ellen",
         "Arthur", "Nora", "Philip", "Alice", "Jonas"]
TRADES = ["miller", "ferryman", "schoolteacher", "baker", "blacksmith", "carpenter", "weaver", "clockmaker",
          "gardener", "cooper", "innkeeper", "physician"]
PLACES = ["the market square", "the stone bridge", "the lower meadow", "the old mill", "the town hall", "the harbour",
          "the schoolhouse", "the north gate", "the library", "the orchard road", "the weir", "the churchyard"]
CROPS = ["barley", "apples", "oats", "flax", "plums", "rye", "beans", "hops"]
WEATHER = ["a mild winter and an early spring", "frost that lasted into April", "a long dry summer",
           "heavy rain from May until the harvest", "a storm in the second week of October",
           "fog that lay on the river for eleven days", "the warmest autumn anyone remembered",
           "snow deep enough to close both roads"]

# Things that numbers were written down for. Each is asked about once.
SUBJECTS = ["the north gate", "the old mill", "the stone bridge", "the town hall", "the harbour", "the library",
            "the weir", "the schoolhouse", "the lighthouse", "the bakery", "the granary", "the watchtower",
            "the orchard", "the ferry", "the brewery", "the chapel", "the windmill", "the forge", "the hospital",
            "the theatre", "the quarry", "the station", "the observatory", "the tannery"]

EVENTS = [
    "{who}, the {trade}, repaired the roof of {place_n} with {n} new slates and asked for nothing but dinner in return.",
    "The council met {n} times, mostly to argue about the lamps near {place}, and adjourned each time without a vote.",
    "A travelling company played for three nights in {place}, and {who} was seen to weep at the end of the second act.",
    "The harvest of {crop} was the best in {n} years, and carts stood in a line from {place} to the river.",
    "The harvest of {crop} failed, and families shared what they had until the boats came in spring.",
    "{who} married {who2}, and the bells rang until the ringers were sent home.",
    "A fire began behind {place} but was put out before morning, with no loss except a cart and {n} sacks of {crop}.",
    "{who} opened a small school for grown people who wished to read, and {n} of them came on the first evening.",
    "The river rose as high as the third step of {place}, where {who} cut a mark that can still be seen.",
    "Two brothers of the {family} family quarrelled over a fence and were reconciled by their aunt over a pot of soup.",
    "A stranger left a chest at {place} and never came back for it; inside were maps of a coast that nobody knew.",
    "The new {trade}, {who}, arrived with a wagon, a grey dog and a great many books.",
    "Children found an old coin near {place}, and {who} paid them a bag of {crop} for it.",
    "The winter fair was moved to {place} because of the ice, and people said that it was better there.",
    "{who} kept bees behind {place}, and by the end of summer there was honey for every house in the street.",
    "A letter arrived from the capital asking how many people lived in Aldermoor; the clerk counted {n} hundred and some.",
    "The clock of the town stopped on a Tuesday, and {who} needed until Friday to find the mouse that had done it.",
    "{who} and {who2} walked to the coast and back to settle a bet about the distance, and both claimed to have won.",
    "The ferry was painted green, over the objections of the {family} family, who had always known it blue.",
    "A choir was founded in {place}; its first concert was short, loud and well liked.",
]
OPENINGS = ["The year {year} began with {weather}.", "In {year} the town had {weather}.",
            "{year} is remembered for {weather}.", "Of {year} the clerk noted first {weather}."]
CLOSINGS = ["So the year ended quietly.", "Nothing else was written down that year.",
            "The clerk closed the book on the last day of December.",
            "Those who were there spoke of it for a long time.", "The rest of the page was left empty.", ""]


def paragraph(rng, year, fact):
    def who():
        return f"{rng.choice(FIRST)} {rng.choice(FAMILIES)}"

    def event(template):
        place = rng.choice(PLACES)
        text = template.format(who=who(), who2=who(), trade=rng.choice(TRADES), place=place, place_n=place,
                               crop=rng.choice(CROPS), family=rng.choice(FAMILIES), n=rng.randint(3, 60))
        return text[0].upper() + text[1:]

    opening = rng.choice(OPENINGS).format(year=year, weather=rng.choice(WEATHER))
    sentences = [opening] + [event(t) for t in rng.sample(EVENTS, rng.randint(2, 3))]
    if fact:
        sentences.insert(rng.randint(1, len(sentences)), fact)
    closing = rng.choice(CLOSINGS)
    if closing:
        sentences.append(closing)
    return " ".join(sentences)


def chronicle(seed, years, facts):
    """The text, and a list of {question, answer, subject, at}."""
    rng = random.Random(seed)
    subjects = rng.sample(SUBJECTS, facts)
    numbers = rng.sample(range(10000, 100000), facts)
    # Facts stand in evenly spread years.
    fact_of_year = {round((i + 0.5) * years / facts): i for i in range(facts)}
    paragraphs, found = ["The Chronicle of Aldermoor, as kept by its clerks."], []
    length = 0
    for y in range(years):
        fact = None
        if y in fact_of_year:
            i = fact_of_year[y]
            fact = f"The secret number of {subjects[i]} is {numbers[i]}."
            found.append({"question": f"What is the secret number of {subjects[i]}?", "answer": str(numbers[i]),
                          "subject": subjects[i], "at": length})
        paragraphs.append(paragraph(rng, 1801 + y, fact))
        length += len(paragraphs[-1]) + 2
    text = "\n\n".join(paragraphs) + "\n"
    for f in found:
        f["at"] = round(f["at"] / len(text), 3)
    return text, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--years", type=int, default=72)
    parser.add_argument("--facts", type=int, default=24)
    args = parser.parse_args()
    text, facts = chronicle(args.seed, args.years, min(args.facts, len(SUBJECTS)))
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, "chronicle.txt"), "w") as f:
        f.write(text)
    with open(os.path.join(args.out, "questions.txt"), "w") as f:
        f.writelines(fact["question"] + "\n" for fact in facts)
    with open(os.path.join(args.out, "facts.json"), "w") as f:
        json.dump(facts, f, indent=1)


if __name__ == "__main__":
    main()
