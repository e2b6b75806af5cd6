-- remove_client NAME: with all its keys. O(its keys).
local name = ARGV[4]
if not exists('client', name) then return {'unknown'} end
local record, keys = key_of('client', name), key_of('keys', name)
local fields = call('HGETALL', record)
leave(name, call('HGET', record, 'group'))
for _, id in ipairs(call('ZRANGE', keys, 0, -1)) do call('DEL', key_of('key', id)) end
call('DEL', keys, record)
call('ZREM', key_of('clients'), name)
log('client.remove', 'client:' .. name)
return {'ok', fields}
