-- create_key CLIENT ID HASH LABEL LIFETIME: LIFETIME in milliseconds from now, 0 for good.
local client, id, hash, label, lifetime = unpack(ARGV, 4)
if not exists('client', client) then return {'unknown'} end
local refused = add_key(client, id, hash, label, now(), tonumber(lifetime))
if refused then return {refused} end
log('key.create', 'client:' .. client, id)
return {'ok', call('HGETALL', key_of('key', id))}
