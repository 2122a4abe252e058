"""What runs stand on: devices, processes, files, signals, the terminal."""
