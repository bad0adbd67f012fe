"""What all tests of the deployment start from."""

import os

# Everything here is on this machine: a proxy of the environment has no part in it.
os.environ["NO_PROXY"] = "*"
