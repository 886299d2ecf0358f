-- The same check, said so that it costs nothing: of a list with more than two members SQLite makes a table, anew for each
-- row that it checks. No row has to be looked at for this: https://www.sqlite.org/lang_altertable.html#otheralter
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(
    sql,
    'status IN (''queued'', ''running'', ''succeeded'', ''failed'', ''cancelled'')',
    'status = ''queued'' OR status = ''running'' OR status = ''succeeded'' OR status = ''failed'' OR status = ''cancelled'''
) WHERE name = 'jobs';
PRAGMA writable_schema = RESET;
