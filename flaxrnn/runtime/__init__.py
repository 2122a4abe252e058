"""What a run rests on: devices, processes, files, signals, the clock, the terminal."""
