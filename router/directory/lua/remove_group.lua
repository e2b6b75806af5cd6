-- remove_group PATH: only if nobody is in it, neither client nor team.
local path = ARGV[4]
if not exists('group', path) then return {'unknown'} end
local teams = call('ZRANGEBYLEX', key_of('groups'), '[' .. path .. '/', '(' .. path .. '0', 'LIMIT', 0, 1)
if teams[1] or call('ZCARD', key_of('members', path)) > 0 then return {'has_members'} end
local record = key_of('group', path)
local fields = call('HGETALL', record)
call('DEL', record)
call('ZREM', key_of('groups'), path)
log('group.remove', 'group:' .. path)
return {'ok', fields}
