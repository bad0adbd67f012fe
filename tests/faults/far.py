"""A network behind a firewall: a namespace of its own, joined to that of the tests by a pair of virtual devices.

It lives as long as the process that holds it. Packets are dropped on its side, in either direction or both.
"""

import ctypes
import os
import subprocess
import threading

from support.process import eventually, need

CLONE_NEWNET = 0x40000000

HERE, THERE = "10.213.7.1", "10.213.7.2"
DEVICE = "far"
BOTH = ("INPUT", "OUTPUT")


class Far:
    here, address = HERE, THERE

    def __init__(self):
        with open("/proc/self/net/dev") as devices:
            names = {line.split(":")[0].strip() for line in devices if ":" in line}
        assert names == {"lo"}, "these tests need a network of their own: bash .ci/run faults"
        self.ip = need("ip", "apt-get install iproute2")
        self.iptables = need("iptables", "apt-get install iptables")
        own = os.readlink("/proc/self/ns/net")
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        try:
            eventually(lambda: os.readlink(self.namespace()) != own, "the other network is there")
            run(self.ip, "link", "add", DEVICE, "type", "veth", "peer", "name", "near", "netns", str(self.holder.pid))
            run(self.ip, "address", "add", f"{HERE}/30", "dev", DEVICE)
            run(self.ip, "link", "set", DEVICE, "up")
            for command in (["address", "add", f"{THERE}/30", "dev", "near"], ["link", "set", "near", "up"]):
                self.inside(self.ip, *command)
        except BaseException:
            self.close()
            raise

    def namespace(self):
        return f"/proc/{self.holder.pid}/ns/net"

    def inside(self, *command):
        return run("nsenter", f"--net={self.namespace()}", *command)

    def drop(self, share=1.0):
        """Drops that share of the packets of each direction, without telling anybody."""
        chance = [] if share >= 1 else ["--match", "statistic", "--mode", "random", "--probability", str(share)]
        for chain in BOTH:
            self.inside(self.iptables, "--wait", "--append", chain, *chance, "--jump", "DROP")

    def dropped(self, chain):
        """How many packets the rules have dropped in this direction."""
        rows = self.inside(self.iptables, "--wait", "--list", chain, "--verbose", "--exact", "--numeric").splitlines()[2:]
        return sum(int(row.split()[0]) for row in rows)

    def heal(self):
        self.inside(self.iptables, "--wait", "--flush")

    def does(self, make):
        """What `make` gives when it runs there: sockets belong to the network in which they were made."""
        made = []

        def work():
            with open(self.namespace()) as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert made, "it failed there"
        return made[0]

    def close(self):
        subprocess.run([self.ip, "link", "delete", DEVICE], check=False, stderr=subprocess.DEVNULL)
        self.holder.kill()
        self.holder.wait()


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
