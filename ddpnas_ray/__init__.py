"""DDPNAS on Ray: search once with shared weights, generate the best network for every budget."""

__version__ = "0.1.0"
