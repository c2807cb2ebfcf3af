"""Everything on this machine: servers from wheels, the demo, the development set."""
