-- Hashes of records, as this call sees them.
--
-- A record is a Lua table, read when first asked for (many at once: `want` each, then `fetch`) and
-- worked on in place. When the call ends it is written if it says `changed` (or was `put`).
-- Stored, it is a string of packed numbers and names: one argument of one command, where a hash of
-- its own would be a command with twenty.
local Records = {}
Records.__index = Records
local hashes = {} -- every view of this call

-- decode(raw, name): the record, of nothing (false) too; encode(record): the string.
-- seen: name -> record, or false if there is none; gone: names of deleted ones; wanted: names to
-- fetch; complete: all are seen.
local function records(key, decode, encode)
  local view = setmetatable({key = key, decode = decode, encode = encode, seen = {}, gone = {}, wanted = {}, complete = false},
                            Records)
  hashes[#hashes + 1] = view
  return view
end

-- What is asked for from now on is read anew.
function Records:forget()
  self.seen, self.gone, self.wanted, self.complete = {}, {}, {}, false
end

-- The record, or nil.
function Records:get(name)
  local record = self.seen[name]
  if record == nil and not self.complete then
    record = self.decode(call('HGET', self.key, name), name)
    self.seen[name] = record
  end
  return record or nil
end

-- To be read with the next `fetch`.
function Records:want(name)
  if self.seen[name] == nil then
    self.seen[name] = false
    self.wanted[#self.wanted + 1] = name
  end
end

function Records:fetch()
  local wanted = self.wanted
  for first = 1, #wanted, CHUNK do
    local raws = call('HMGET', self.key, unpack(wanted, first, math.min(first + CHUNK - 1, #wanted)))
    for i, raw in ipairs(raws) do
      local name = wanted[first + i - 1]
      self.seen[name] = self.decode(raw, name)
    end
  end
  self.wanted = {}
end

-- Every record, by name (false: not any more). For small hashes.
function Records:all()
  if not self.complete then
    local flat = call('HGETALL', self.key)
    for i = 1, #flat, 2 do
      if self.seen[flat[i]] == nil then self.seen[flat[i]] = self.decode(flat[i + 1], flat[i]) end
    end
    self.complete = true
  end
  return self.seen
end

function Records:put(name, record)
  record.changed = true
  self.seen[name] = record
end

function Records:delete(name)
  self.seen[name] = false
  self.gone[#self.gone + 1] = name
end

function Records:write()
  call_with_all('HDEL', self.key, self.gone)
  local changed = {}
  for name, record in pairs(self.seen) do
    if record and record.changed then
      changed[#changed + 1] = name
      changed[#changed + 1] = self.encode(record)
    end
  end
  call_with_all('HSET', self.key, changed)
end
