"""Headless Chromium (Debian's package chromium) for checks, spoken to through its debugging pipe:
Python alone is needed."""
import json
import os
import subprocess


class Browser:
    """Chromium behind --remote-debugging-pipe: messages end with a NUL."""

    def __init__(self):
        to_read, self.to = os.pipe()
        self.back, back_write = os.pipe()
        # The browser reads from 3 and writes to 4.
        os.set_inheritable(to_read, True)
        os.set_inheritable(back_write, True)
        command = (f"exec chromium --headless --no-sandbox --disable-gpu --remote-debugging-pipe "
                   f"--hide-scrollbars about:blank 3<&{to_read} 4>&{back_write}")
        self.process = subprocess.Popen(["bash", "-c", command], close_fds=False,
                                        stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(back_write)
        self.rest = b""
        self.count = 0
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]

    def read(self):
        while b"\0" not in self.rest:
            part = os.read(self.back, 1 << 16)
            if not part:
                raise SystemExit("check: the browser is gone")
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise SystemExit(f"check: {method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.read())

    def evaluate(self, script):
        """The value of an expression that is JSON, or a promise of it."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"check: {result['exceptionDetails']}")
        return json.loads(result["result"]["value"])

    def close(self):
        self.call("Browser.close")
        self.process.wait(20)
