"""A driver program under way: it prints JSON lines, it is told one command a line (drivers/README.md)."""
import json
import os
import subprocess
import threading
from collections import deque

from . import cache


class Died(Exception):
    """The program ended, or said nothing in time; the message holds the end of its standard error."""


class Program:
    def __init__(self, driver, client, contacts, version=None, compression="none", credentials=None, ca=None, only=False, tls=None, pair=None, pool=None, retries=True, token_aware=None):
        self.driver, self.client, self.events, self.answers = driver, client, [], deque()
        self.settings = (version, compression, credentials, ca, only, tls, pair, pool, retries, token_aware)
        self.changed = threading.Condition()
        self.log = cache.RUN / f"{client.full}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        user, password = credentials or (None, None)
        certificate, key = map(str, pair) if pair else (None, None)
        options = {"contacts": contacts, "version": version or driver.default, "compression": compression,
                   "username": user, "password": password, "ca": str(ca) if ca else None, "only": only,
                   "tls": tls, "certificate": certificate, "key": key, "pool": pool, "retries": retries,
                   "token_aware": bool(token_aware)}
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", client.full, *map(str, driver.command()), json.dumps(options)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(self.log, "w"), start_new_session=True,
            env={**os.environ, "RUST_BACKTRACE": "0"})
        threading.Thread(target=self.listen, daemon=True).start()
        try:
            self.ready = self.answer("ready", 90)
        except Died:
            self.kill()
            raise

    def again(self, contacts):
        """A new program, told the same but for its contact points, in place of this one."""
        self.kill()
        return Program(self.driver, self.client, contacts, *self.settings)

    def listen(self):
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            with self.changed:
                if said.get("event") in ("up", "down", "add", "remove"):
                    self.events.append(said)
                else:
                    self.answers.append(said)
                self.changed.notify_all()
        with self.changed:
            self.answers.append(None)
            self.changed.notify_all()

    def errors(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def answer(self, wanted, seconds):
        with self.changed:
            if not self.changed.wait_for(lambda: self.answers, seconds):
                raise Died(f"{self.driver.name} said nothing to `{wanted}` for {seconds} s\n{self.errors()}")
            said = self.answers.popleft()
        if said is None:
            self.answers.append(None)
            raise Died(f"{self.driver.name} ended with {self.process.wait()} at `{wanted}`\n{self.errors()}")
        if wanted not in (said.get("event"), said.get("reply")):
            raise Died(f"{self.driver.name} answered {said} to `{wanted}`")
        return said

    def ask(self, command, seconds=60):
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # `answer` says why it ended
        return self.answer(command.split()[0], seconds)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def quit(self, seconds=20):
        """Its exit code; a program that must be killed has none."""
        try:
            self.process.stdin.write("quit\n")
            self.process.stdin.close()
            return self.process.wait(seconds)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
            return None
