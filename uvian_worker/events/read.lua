-- Read a topic after a cursor, in one look at it.
-- ARGV: namespace, topic, cursor ("" for a new reader), how many events at most, 16 random hexadecimal digits.
-- Answers {kind, last cursor, ended, more, run, entries}: kind is resume, snapshot or expired; entries are
-- envelopes; of a snapshot {field, envelope} in turn and for messages {"text:<id>", text so far} as well;
-- of expired the same, for messages in flight only.

local NAMESPACE, TOPIC, CURSOR, LIMIT, RANDOM = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local KEY = NAMESPACE .. ':topic:' .. TOPIC
local LOG = NAMESPACE .. ':log:' .. TOPIC
local PREFIX = '{"id":"'
local KEEP = 24 * 60 * 60 * 1000
local PAGE, CHUNK = 512 * 1024, 100 -- bytes of a page, and events that are looked at in one go
local FAR = 1e15 -- no topic has as many events; beyond 1e19 Redis would take the id for an error
local LONG = 500 -- events; a reader that is behind by more gets the state so far

local topic = redis.call('HMGET', KEY, 'epoch', 'seq', 'last', 'complete', 'run', 'sealed')
if not topic[1] then
  -- It gets its epoch now: a cursor before its first event must not fit whatever begins after a flush.
  local epoch = string.sub(RANDOM, 1, 8)
  topic = {epoch, '0', epoch .. '-0-0', false, false, false}
  redis.call('HSET', KEY, 'epoch', epoch, 'seq', 0, 'last', topic[3])
  redis.call('PEXPIRE', KEY, KEEP)
end
local epoch, seq, last, run = topic[1], tonumber(topic[2]), topic[3], tonumber(topic[5] or 0)
local ended = (run > 0 and tonumber(topic[6] or 0) == run) and 1 or 0

local function int(number)
  return string.format('%.0f', number)
end

-- As many as were requested, or as fill a page: an event may have 64 kB.
local function events_after(position)
  local envelopes, size, from = {}, 0, int(position + 1) .. '-0'
  while true do
    local entries = redis.call('XRANGE', LOG, from, '+', 'COUNT', CHUNK + 1)
    for index = 1, math.min(#entries, CHUNK) do
      if #envelopes == LIMIT or size > PAGE then return {'resume', last, ended, 1, run, envelopes} end
      local envelope = entries[index][2][2]
      envelopes[#envelopes + 1] = envelope
      size = size + #envelope
    end
    if #entries <= CHUNK then return {'resume', last, ended, 0, run, envelopes} end
    from = entries[CHUNK + 1][1]
  end
end

local function first_is_there()
  local first = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
  return first and first[1] == '1-0'
end

-- Is the entry at this seq still the one that the cursor was given for?
local function still_there(position)
  local entry = redis.call('XRANGE', LOG, int(position) .. '-0', int(position) .. '-0')[1]
  local start = PREFIX .. CURSOR .. '"'
  return entry and string.sub(entry[2][2], 1, #start) == start
end

-- The state so far; or of it the messages in flight alone, which no row has.
local function state(all)
  local entries, fields = {}, redis.call('HGETALL', NAMESPACE .. ':state:' .. TOPIC)
  local function add(field, value)
    entries[#entries + 1] = field
    entries[#entries + 1] = value
  end
  for index = 1, #fields, 2 do
    local message = string.match(fields[index], '^message:(.*)$')
    if all or message then add(fields[index], fields[index + 1]) end
    if message then add('text:' .. message, redis.call('GET', NAMESPACE .. ':text:' .. message) or '') end
  end
  return entries
end

local function snapshot()
  return {'snapshot', last, ended, 0, run, state(true)}
end

local function expired()
  return {'expired', last, ended, 0, run, state(false)}
end

local kind = string.match(TOPIC, '^(%a+):')
-- A job's log that began in the middle (Redis was flushed) would look whole from its start.
local whole = kind ~= 'job' or topic[4] == '1'

if CURSOR == last then return events_after(seq) end
if CURSOR == '' then
  if seq == 0 or kind == 'user' or not whole then return expired() end
  if kind == 'job' and seq <= LONG and first_is_there() then return events_after(0) end
  return snapshot()
end
if CURSOR == epoch .. '-0-0' then
  if first_is_there() then return events_after(0) end
else
  local position = tonumber(string.match(CURSOR, '^%w+%-(%d+)%-%w+$') or '0')
  if position > 0 and position < FAR and still_there(position) then return events_after(position) end
end
if kind == 'user' or not whole then return expired() end
return snapshot()
