"""The commands, one idea a file. Torch is imported when one runs, so that --help is quick."""
