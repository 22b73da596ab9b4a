"""The commands of `machineshop`, one file for each noun; `cli` names them and loads none of them."""
