"""From result files to a board: read, one tidy table, claims, and what people see.

`read` opens result files and refuses the impossible ones, `table` turns them into one
line a result, `claims` says which rows are proven better, and `board` puts together
the one dict that every form (Markdown, CSV, JSON, page, picture) is written from. No
task is named here: tasks declare their columns in `jaxbench/tasks/NAME/board.py`.
"""
