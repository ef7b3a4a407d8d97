"""Submissions that do not answer but attack, on *cross-entropy and a coder*.

Each is the reference with one solution replaced, or with a cell in front of all others; it loses
what that solution would have earned, and nothing else.
"""

from assignments.tried import Tried

PERPLEXITY = "perplexity of a whole text"
HEAD = "def corpus_perplexity(batches):\n    "

TRIED = [
    Tried(
        name="an endless loop in a function",
        replaced={"perplexity": HEAD + "while True: pass"},
        lost={PERPLEXITY: "did not end within"},
    ),
    Tried(
        name="an endless loop in a cell",
        replaced={"perplexity": "while True: pass"},
        lost={PERPLEXITY: "is not defined"},
    ),
    Tried(
        name="an endless loop that catches everything",
        replaced={
            "perplexity": HEAD
            + "while True:\n        try:\n            pass\n        except BaseException:\n"
            "            pass"
        },
        lost={PERPLEXITY: "did not end within"},
    ),
    Tried(
        name="memory",
        replaced={"perplexity": HEAD + "return [bytearray(2**26) for _ in range(10**6)]"},
        lost={PERPLEXITY: "MemoryError"},
    ),
    Tried(
        name="exit() in a cell",
        replaced={"perplexity": "exit()"},
        lost={PERPLEXITY: "is not defined"},
    ),
    Tried(
        name="sys.exit() in a function",
        replaced={"perplexity": HEAD + "import sys; sys.exit(0)"},
        lost={PERPLEXITY: "SystemExit"},
    ),
    Tried(
        name="os._exit in a cell",
        replaced={"perplexity": "import os; os._exit(0)"},
        lost={PERPLEXITY: "is not defined"},
    ),
    Tried(
        name="os._exit in a function",
        replaced={"perplexity": HEAD + "import os; os._exit(0)"},
        lost={PERPLEXITY: "ended the process"},
    ),
    Tried(
        name="exception at import",
        replaced={"perplexity": "import no_such_module"},
        lost={PERPLEXITY: "is not defined"},
    ),
    Tried(
        name="a deleted cell",
        removed=["perplexity"],
        lost={PERPLEXITY: "is not defined"},
    ),
    Tried(
        name="a renamed function",
        edits=[("perplexity", "def corpus_perplexity", "def perplexity_of")],
        lost={PERPLEXITY: "is not defined"},
    ),
    Tried(name="deleted imports and tests", removed=["imports", "pieces", "coder-test"]),
    Tried(
        name="a flood of output",
        edits=[
            ("perplexity", "    return math.exp", "    print('x' * 10**7)\n    return math.exp")
        ],
    ),
    Tried(
        name="an answer too large to read",
        replaced={"perplexity": HEAD + "return ['x' * 10**6] * 100"},
        lost={PERPLEXITY: "gave more than can be read"},
    ),
    Tried(
        name="the package patched",
        first="import companion.teaching.checks as c, companion.teaching.comparison as d\n"
        "c.check = c.check_function = lambda *a, **k: True\nd.difference = lambda *a: ''\n",
        replaced={"perplexity": HEAD + "return 1.0"},
        lost={PERPLEXITY: "too small"},
    ),
    Tried(
        name="torch patched to agree with everything",
        first="import torch\ntorch.testing.assert_close = lambda *a, **k: None\n",
        replaced={"perplexity": HEAD + "return 1.0"},
        lost={PERPLEXITY: "too small"},
    ),
    Tried(
        name="frames searched for the expected value",
        replaced={
            "perplexity": HEAD + "import sys\n    frame = sys._getframe()\n    while frame:\n"
            "        for key in ('expected', 'reference', 'right'):\n"
            "            if key in frame.f_locals: return frame.f_locals[key]\n"
            "        frame = frame.f_back\n    return 1.0"
        },
        lost={PERPLEXITY: "too small"},
    ),
    Tried(
        name="a lying __eq__",
        replaced={
            "perplexity": "class Yes(float):\n    def __eq__(self, other): return True\n"
            "    def __sub__(self, other): return 0.0\n    __rsub__ = __add__ = __sub__\n"
            + HEAD
            + "return Yes(1.0)"
        },
        lost={PERPLEXITY: "too small"},
    ),
    Tried(
        name="an object that says it is equal",
        replaced={
            "perplexity": "class Yes:\n    def __eq__(self, other): return True\n"
            + HEAD
            + "return Yes()"
        },
        lost={PERPLEXITY: "a number is asked for"},
    ),
    Tried(
        name="replies forged on the pipe",
        first="import os\n"
        "for fd in range(3, 20):\n"
        '    try: os.write(fd, b\'{"id": "1", "answer": 1.0}\\n\')\n'
        "    except OSError: pass\n",
        replaced={"perplexity": HEAD + "return 1.0"},
        lost={PERPLEXITY: "too small"},
    ),
    Tried(
        name="the judge's files looked for",
        replaced={
            "perplexity": HEAD + "import companion, pathlib\n"
            "    import assignments.judges.cross_entropy_and_a_coder as judge\n"
            "    return judge.corpus_perplexity(batches)"
        },
        lost={PERPLEXITY: "No module named 'assignments'"},
    ),
    Tried(
        name="another program started",
        replaced={"perplexity": HEAD + "import subprocess; subprocess.run(['ls'])"},
        lost={PERPLEXITY: "may not do this"},
    ),
    Tried(
        name="another process's file read",
        replaced={"perplexity": HEAD + "return float(len(open('/proc/1/cmdline').read()))"},
        lost={PERPLEXITY: "own folder only"},
    ),
    Tried(
        name="a path relative to another folder",
        replaced={
            "perplexity": HEAD + "import os\n    usr = os.open('/usr', os.O_RDONLY)\n"
            "    return os.open('../proc/1/cmdline', os.O_RDONLY, dir_fd=usr)"
        },
        lost={PERPLEXITY: "own folder only"},
    ),
    Tried(
        name="another working folder",
        replaced={"perplexity": HEAD + "import os; os.chdir('/usr')"},
        lost={PERPLEXITY: "own folder only"},
    ),
    Tried(
        name="a program started through the C library",
        replaced={
            "perplexity": HEAD + "import ctypes; return ctypes.pythonapi.system(b'true')",
        },
        lost={PERPLEXITY: "may not do this"},
    ),
    Tried(
        name="a program started below subprocess",
        replaced={
            "perplexity": HEAD + "import _posixsubprocess; return _posixsubprocess.fork_exec()",
        },
        lost={PERPLEXITY: "no attribute 'fork_exec'"},
    ),
    Tried(
        name="the judge's process taken hold of",
        replaced={"perplexity": HEAD + "import os; return os.pidfd_open(os.getppid())"},
        lost={PERPLEXITY: "no attribute 'pidfd_open'"},
    ),
    Tried(
        name="another process's limits lowered",
        replaced={
            "perplexity": HEAD + "import os, resource\n"
            "    return resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))"
        },
        lost={PERPLEXITY: "prlimit"},
    ),
    Tried(
        name="another process slowed",
        replaced={
            "perplexity": HEAD + "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)"
        },
        lost={PERPLEXITY: "no attribute 'setpriority'"},
    ),
    Tried(
        name="a datagram sent",
        replaced={
            "perplexity": HEAD + "import socket\n"
            "    return socket.socket(2, 2).sendto(b'x', ('127.0.0.1', 9))"
        },
        lost={PERPLEXITY: "may not do this"},
    ),
    Tried(
        name="a database elsewhere",
        replaced={"perplexity": HEAD + "import sqlite3; sqlite3.connect('/usr/x.sqlite')"},
        lost={PERPLEXITY: "own folder only"},
    ),
    Tried(
        name="an error that no file can hold",
        replaced={"perplexity": HEAD + "raise ValueError('\\udce4' * 1000)"},
        lost={PERPLEXITY: "ValueError"},
    ),
    Tried(
        name="folders in folders",
        first="import os\nhome = os.getcwd()\nfor _ in range(1500):\n"
        "    os.mkdir('d')\n    os.chdir('d')\nos.chdir(home)\n",
        replaced={"perplexity": HEAD + "return 1.0"},
        lost={PERPLEXITY: "too small"},
    ),
]
