#!/usr/bin/env python3
"""summarize: picks the most important sentences and words of a text.

Input:    {"text": "..."} or {"path": "/some/file.txt"} (absolute, UTF-8, at most 16 MiB).
Config:   {"sentences": 3, "keywords": 5}; the defaults are in recipe.toml.
Result:   a JSON object, written to AGENTSPOOL_RESULT_FILE; stdout is a log for people.
Progress: a JSON line for each percent, appended to AGENTSPOOL_PROGRESS_FILE.
Exit:     2 and one line on stderr for an input or config that cannot be used.

It is not a language model. It counts words, and returns sentences of the text unchanged and in their order.
The stop words are English. Other languages with spaces between words work, with weaker keywords. It needs
Python 3.9 or newer and only the standard library.

Invariant: the same input and config give the same result. A result is written only after everything was read.
"""

import json
import os
import re
import stat
import sys
from collections import Counter

MAX_BYTES = 16 * 1024 * 1024
DEFAULTS = {"sentences": 3, "keywords": 5}
LIMITS = {"sentences": (1, 100), "keywords": (0, 100)}

STOP_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before being below
    between both but by can cannot could did do does doing down during each even ever every few for from
    further get had has have having he her here hers herself him himself his how however i if in into is it
    its itself just let like made make many may me might more most much must my myself no nor not now of off
    often on once one only or other our ours ourselves out over own same shall she should since so some such
    than that the their theirs them themselves then there these they this those though through thus to too
    under until up upon us very was we well were what when where which while who whom whose why will with
    within without would yet you your yours yourself yourselves
    isn't aren't wasn't weren't don't doesn't didn't won't can't couldn't wouldn't shouldn't hasn't haven't
    hadn't i'm i've i'll i'd you're you've you'll he's she's it's we're we've we'll they're they've that's
    there's let's""".split()
)
# A full stop after one of these does not end a sentence.
ABBREVIATIONS = frozenset("mr mrs ms dr prof st vs etc no fig al approx e.g i.e cf vol pp jr sr inc ltd co".split())

WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
PARAGRAPH = re.compile(r"\n[ \t\r\f\v]*(?:\n\s*)+")
# The look-behind keeps the search linear: a match may start only at the start of a run of punctuation.
SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’»)\]]*\s+")


class BadInput(Exception):
    """The request cannot be used. The text of the exception is the line that is printed."""


def main():
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        text, path = read_text(read_object(sys.stdin.buffer.read(), "input"))
        config = read_config(os.environ.get("AGENTSPOOL_CONFIG") or "{}")
        result = summarize(text, config, Progress(os.environ.get("AGENTSPOOL_PROGRESS_FILE")))
    except BadInput as bad:
        print(f"summarize: {bad}", file=sys.stderr)
        return 2
    write_result({**result, "path": path})
    return 0


# --- the input -------------------------------------------------------------------------------------


def read_object(data, what):
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise BadInput(f"the {what} is not valid JSON") from None
    if not isinstance(value, dict):
        raise BadInput(f"the {what} must be a JSON object")
    return value


def read_text(request):
    given = [key for key in ("text", "path") if request.get(key) is not None]
    if len(given) != 1:
        raise BadInput('the input needs exactly one of {"text": "…"} and {"path": "/some/file.txt"}')
    key = given[0]
    value = request[key]
    if not isinstance(value, str):
        raise BadInput(f'"{key}" must be a string')
    text = value if key == "text" else read_file(value)
    if not WORD.search(text):
        raise BadInput("the text has no words" if key == "text" else f"{quoted(value)}: the file has no words")
    return text, (value if key == "path" else None)


def read_file(path):
    if not os.path.isabs(path):
        raise BadInput(f"{quoted(path)}: the path must be absolute")
    try:
        # Non-blocking, because opening a pipe without a writer would wait forever.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadInput(f"{quoted(path)}: not a regular file")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{quoted(path)}: {error.strerror or error}") from None
    except ValueError:  # a NUL byte or half a surrogate pair
        raise BadInput(f"{quoted(path)}: not a path") from None
    if len(data) > MAX_BYTES:
        raise BadInput(f"{quoted(path)}: larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{quoted(path)}: not UTF-8 text") from None


def read_config(text):
    given = read_object(text, "config")
    config = dict(DEFAULTS)
    for key, value in given.items():
        if key not in DEFAULTS:
            print(f"config: {quoted(key)} is unknown and has no effect")
            continue
        low, high = LIMITS[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise BadInput(f"config: {key} must be a whole number from {low} to {high}")
        config[key] = value
    return config


def quoted(text):
    """The text as JSON, which is always one line."""
    return json.dumps(text, ensure_ascii=False)


# --- the work --------------------------------------------------------------------------------------


def summarize(text, config, progress):
    sentences = split_sentences(text)
    print(f"characters: {len(text)}, sentences: {len(sentences)}")

    counts = Counter()
    shown_as = {}
    total_words = 0
    for number, sentence in enumerate(sentences):
        for word in WORD.findall(sentence):
            total_words += 1
            term = content_term(word)
            if term:
                counts[term] += 1
                shown_as.setdefault(term, Counter())[word] += 1
        progress.report(0.6 * (number + 1) / len(sentences), "Counting words")

    top = max(counts.values(), default=1)
    scores = []
    for number, sentence in enumerate(sentences):
        scores.append(score(sentence, counts, top))
        progress.report(0.6 + 0.4 * (number + 1) / len(sentences), "Scoring sentences")

    first_of = {sentence: number for number, sentence in reversed(list(enumerate(sentences)))}  # no duplicates
    ranked = sorted(first_of.values(), key=lambda number: (-scores[number], number))
    chosen = sorted(ranked[: config["sentences"]])
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: config["keywords"]]
    keywords = [{"word": common_form(shown_as[term]), "count": count} for term, count in frequent]
    for number in chosen:
        print(f"sentence {number + 1} of {len(sentences)}, score {scores[number]:.3f}")
    print("keywords: " + (", ".join(keyword["word"] for keyword in keywords) or "none"))
    return {
        "summary": " ".join(sentences[number] for number in chosen),
        "sentences": [
            {"number": number + 1, "score": round(scores[number], 4), "text": sentences[number]} for number in chosen
        ],
        "keywords": keywords,
        "total_sentences": len(sentences),
        "total_words": total_words,
    }


def split_sentences(text):
    """The sentences in order, with single spaces. A blank line ends a sentence, so a heading is one."""
    found = []
    for paragraph in PARAGRAPH.split(text):
        start = 0
        for end in SENTENCE_END.finditer(paragraph):
            following = paragraph[end.end() : end.end() + 1]
            word = re.split(r"[\s(\"'“‘]", paragraph[max(start, end.start() - 40) : end.start()])[-1].lower()
            initial = len(word) == 1 and word.isalpha() and word != "i"
            if following.islower() or (end.group().strip() == "." and (initial or word in ABBREVIATIONS)):
                continue
            found.append(paragraph[start : end.end()])
            start = end.end()
        found.append(paragraph[start:])
    sentences = (" ".join(sentence.split()) for sentence in found)
    return [sentence for sentence in sentences if WORD.search(sentence)]


def content_term(word):
    """The form in which a word is counted, or None for a stop word, a short word or a number."""
    term = word.lower().replace("’", "'")
    if term.endswith("'s"):
        term = term[:-2]
    return None if len(term) < 3 or term in STOP_WORDS or term.isdigit() else term


def common_form(forms):
    return min(forms, key=lambda form: (-forms[form], form))


def score(sentence, counts, top):
    """The mean weight of the words. A short sentence counts less, because otherwise every heading would win."""
    terms = [term for term in map(content_term, WORD.findall(sentence)) if term]
    if not terms:
        return 0.0
    weight = sum(counts[term] / top for term in set(terms))
    return weight / max(len(terms), 8)


# --- the output ------------------------------------------------------------------------------------


class Progress:
    """Appends a line whenever the whole percent changes. Without a progress file it does nothing."""

    def __init__(self, path):
        self.path = path
        self.percent = -1

    def report(self, fraction, message):
        percent = int(fraction * 100 + 1e-9)
        if not self.path or percent == self.percent:
            return
        self.percent = percent
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"progress": percent / 100, "message": message}) + "\n")


def write_result(result):
    # backslashreplace: a lone surrogate in the text is written as the JSON escape that it was.
    data = (json.dumps(result, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "backslashreplace")
    path = os.environ.get("AGENTSPOOL_RESULT_FILE")
    if not path:  # run by hand
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    with open(path, "wb") as file:
        file.write(data)


if __name__ == "__main__":
    sys.exit(main())
