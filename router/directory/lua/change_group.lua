-- change_group PATH WEIGHT
local path, weight = unpack(ARGV, 4)
if not exists('group', path) then return {'unknown'} end
local record = key_of('group', path)
call('HSET', record, 'weight', weight)
log('group.change', 'group:' .. path)
return {'ok', call('HGETALL', record)}
