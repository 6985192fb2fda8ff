"""Why something cannot go on, in as few words as it takes."""

import re

SCAFFOLD = ("Parser key", "Subtypes:", "Errors:", "Given value", "Problem with given class_path",
            "Does not validate")  # fmt: skip
"""Lines of jsonargparse's that say where and how it tried, not what was wrong."""

VAGUE = ("Expected a <class 'NoneType'>", "Expected a path but")
"""What it also tried, if anything else is said."""


def in_a_line(message: str) -> str:
    """What jsonargparse says of a setting, as ``key: reason``, without the tree of its attempts."""
    if not message.startswith("Parser key "):
        return message
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    said = [line for line in lines if line and not line.startswith(SCAFFOLD)]
    reasons = [line for line in said if not line.startswith(VAGUE)] or said
    given = [line.removeprefix("Given value: ") for line in lines if "Given value: " in line]
    text = " or ".join(dict.fromkeys(reasons))
    if given and text.startswith("Expected a <") and "value: " not in text:
        text += f", not {given[0]}"
    text = re.sub(r"Expected a dot import path string: (\S+)", r"there is no class \1", text)
    text = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", text)
    keys = re.findall(r'Parser key "([^"]+)"', message)
    while inner := re.match(r"([a-z_.]+): ", text):  # said by an inner parser
        keys, text = [*keys, inner[1]], text[inner.end() :]
    return f"{'.'.join(keys)}: {text}"
