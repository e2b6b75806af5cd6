-- Sets and sorted sets, as this call sees them.
--
-- What the call changes is kept on top of what is stored, and written when it ends. `lowest` takes
-- the lower of two: the lowest of the changed members, from a heap (heap.lua), and the lowest
-- stored member that is not among them, from a cursor that reads a few members at a time.
local Set = {}
Set.__index = Set
local sets, sets_by_kind = {}, {} -- every view of this call

-- key, and the commands that add and remove.
-- fresh: members that are not stored -> score (true in a plain set); moved: members that are
-- stored -> score now, or false if they have left; changes: how many of both.
-- scores, members: the heap, made when needed.
-- read: what the cursor has read, looked at from `at` on; from: where it reads on; read_all: there
-- is no more. cleared: what was stored is void.
local NOTHING = {}
local function new_set(add, remove, key, empty)
  return setmetatable({key = key, add_command = add, remove_command = remove, fresh = {}, moved = {}, changes = 0,
                       scores = false, members = false, read = NOTHING, at = 1, from = 0, read_all = empty, cleared = false}, Set)
end

-- What is asked for from now on is read anew.
function Set:forget()
  self.fresh, self.moved, self.changes, self.scores, self.members = {}, {}, 0, false, false
  self.read, self.at, self.from, self.read_all, self.cleared = NOTHING, 1, 0, false, false
end

-- The set at KIND or KIND:NAME. empty: nothing is stored there.
local function open_set(add, remove, kind, name, empty)
  local named = sets_by_kind[kind]
  if not named then
    named = {}
    sets_by_kind[kind] = named
  end
  local set = named[name or '']
  if not set then
    set = new_set(add, remove, key_of(kind, name), empty)
    named[name or ''] = set
    sets[#sets + 1] = set
  end
  return set
end

local function sorted_set(kind, name, empty) return open_set('ZADD', 'ZREM', kind, name, empty or false) end
local function plain_set(kind, name) return open_set('SADD', 'SREM', kind, name, false) end

-- A new member.
function Set:add(member, score)
  if self.moved[member] == nil then
    self.fresh[member] = score
    self.changes = self.changes + 1
  else
    self.moved[member] = score
  end
  if self.members then push(self, score, member) end
end

-- Another score for a member.
function Set:move(member, score)
  local old = self.fresh[member]
  if old then
    self.fresh[member] = score
  else
    old = self.moved[member]
    if old == nil then self.changes = self.changes + 1 end
    self.moved[member] = score
  end
  if self.members and not (old and score >= old) then push(self, score, member) end
end

function Set:remove(member)
  if self.fresh[member] then
    self.fresh[member] = nil
    self.changes = self.changes - 1
  else
    if self.moved[member] == nil then self.changes = self.changes + 1 end
    self.moved[member] = false
  end
end

-- How many are in a sorted set. O(changes).
function Set:size()
  local size = call('ZCARD', self.key)
  for _ in pairs(self.fresh) do size = size + 1 end
  for _, score in pairs(self.moved) do
    if not score then size = size - 1 end
  end
  return size
end

-- All of a plain set's members.
function Set:clear()
  self:forget()
  self.read_all, self.cleared = true, true
end

-- Is it one of a plain set's members?
function Set:has(member)
  local changed = self.fresh[member] or self.moved[member]
  if changed == nil and not self.read_all then return call('SISMEMBER', self.key, member) == 1 end
  return changed or false
end

local FEW = 4 -- are looked at one by one

local function lower_of(changed, lowest, lowest_score)
  for member, score in pairs(changed) do
    if score and not (lowest and before(lowest_score, lowest, score, member)) then lowest, lowest_score = member, score end
  end
  return lowest, lowest_score
end

local function lowest_changed(self)
  if self.changes <= FEW then
    self.members = false
    return lower_of(self.moved, lower_of(self.fresh))
  end
  if not self.members then
    self.scores, self.members = {}, {}
    for member, score in pairs(self.fresh) do push(self, score, member) end
    for member, score in pairs(self.moved) do
      if score then push(self, score, member) end
    end
  end
  while true do
    local member = self.members[1]
    if not member then return nil end
    local score = self.fresh[member] or self.moved[member]
    if score == self.scores[1] then return member, score end
    if score then replace_top(self, score, member) else drop_top(self) end
  end
end

local function lowest_stored(self)
  while true do
    local member = self.read[self.at]
    if member then
      if self.moved[member] == nil then return member, tonumber(self.read[self.at + 1]) end
      self.at = self.at + 2
    elseif self.read_all then
      return nil
    else -- more each time: who needs many pays for few commands
      local count = math.min(2 + self.from, 100)
      self.read = call('ZRANGE', self.key, self.from, self.from + count - 1, 'WITHSCORES')
      self.at, self.from, self.read_all = 1, self.from + count, #self.read < 2 * count
    end
  end
end

-- The member with the lowest score, and the score; ties go to the smaller name.
function Set:lowest()
  local changed, score = lowest_changed(self)
  local stored, stored_score = lowest_stored(self)
  if stored and not (changed and before(score, changed, stored_score, stored)) then return stored, stored_score end
  return changed, score
end

function Set:write()
  if self.changes == 0 and not self.cleared then return end
  local added, removed = {}, {}
  for _, changed in ipairs({self.fresh, self.moved}) do
    for member, score in pairs(changed) do
      if not score then
        removed[#removed + 1] = member
      else
        if score ~= true then added[#added + 1] = score end
        added[#added + 1] = member
      end
    end
  end
  if self.cleared then call('DEL', self.key) end
  call_with_all(self.add_command, self.key, added)
  call_with_all(self.remove_command, self.key, removed)
end
