"""What the workers of peers.py share: one JSON object a line in, one out. A failed command answers {"error"} and goes on."""
import json
import os
import sys


def serve(make):
    """`make()` gives an object whose methods are the commands: {"op": name, ...arguments}. The first line out says whether
    it could be made."""
    # Libraries print to standard output as they like; answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(document):
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    try:
        target = make()
    except Exception as error:  # whatever a library throws is that engine's row
        answer({"error": " ".join(str(error).split()) or type(error).__name__})
        return
    answer({"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer(getattr(target, command.pop("op"))(**command))
        except Exception as error:
            answer({"error": " ".join(str(error).split()) or type(error).__name__})
