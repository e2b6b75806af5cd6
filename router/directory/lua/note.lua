-- note VERB SUBJECT: something else was changed, which the log is to tell.
log(ARGV[4], ARGV[5])
return {'ok', {}}
