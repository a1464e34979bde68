"""Runs the program for the table tools."""
import json
import subprocess
import sys


def qins(program, *arguments):
    """Runs a command with --json and returns its object; ends the tool when the command fails."""
    done = subprocess.run([program, *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"{program} {' '.join(arguments)} failed with status {done.returncode}")
    return json.loads(done.stdout)
