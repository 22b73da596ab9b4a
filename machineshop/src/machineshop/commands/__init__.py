"""The commands of `machineshop`, one file for each noun; `cli` names them and loads none of them.

Help and the parser's errors load the files of commands, so what these need of the platform is imported where they run:
the store and the server take a second to load.
"""
