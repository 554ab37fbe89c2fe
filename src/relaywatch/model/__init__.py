"""The canonical tables and the finding: what goes in and what comes out. Imports nothing of ours."""
