-- The event log. Every script that appends begins with this file, so that there is one log and one fence.
--
-- ARGV[1] namespace   ARGV[2] server   ARGV[3] random
--   server: "<run_id>:<master_replid>" of INFO, read on this very connection; "" if Redis does not say
--   random: 16 random hexadecimal digits, new for each call
--
-- A topic is a hash (epoch, seq and fences), a stream (the envelopes) and, for jobs and
-- conversations, a hash of the envelopes that are its state so far. Keys are made up here from
-- what the arguments name, so all of them must live on one server: no Redis Cluster.

local NAMESPACE, RANDOM = ARGV[1], ARGV[3]
-- Half of each will do, and keeps a topic's hash in the compact form: no value over 64 bytes.
local SERVER = string.gsub(ARGV[2], '%w+', function(id) return string.sub(id, 1, 20) end)
local MAX_EVENTS = 10000
local KEEP = 24 * 60 * 60 * 1000
local RENEW = 10 * 60 * 1000 -- expiry is renewed this seldom, and set that much longer
local EPOCH, SEED = string.sub(RANDOM, 1, 8), tonumber(string.sub(RANDOM, 9, 16), 16)

local CLOCK = redis.call('TIME')
local NOW = tonumber(CLOCK[1]) * 1000 + math.floor(tonumber(CLOCK[2]) / 1000)

local topics = {}
local checks = 0 -- how many were made in this call

local function int(number)
  return string.format('%.0f', number)
end

-- Keys are put together where they are used: a string that is not needed is not for nothing here, where
-- every token of every answer passes.
local function log_key(topic)
  return NAMESPACE .. ':log:' .. topic.name
end

local function state_key(topic)
  return NAMESPACE .. ':state:' .. topic.name
end

local function open(name)
  if topics[name] then return topics[name] end
  local key = NAMESPACE .. ':topic:' .. name
  local saved = redis.call('HMGET', key, 'epoch', 'seq', 'server', 'renewed',
    'run', 'number', 'sealed', 'queued', 'once', 'credits')
  local topic = {
    name = name, key = key, missing = not saved[1],
    epoch = saved[1], seq = tonumber(saved[2] or 0), server = saved[3] or '',
    renewed = tonumber(saved[4] or 0),
    run = tonumber(saved[5] or 0), number = tonumber(saved[6] or 0),
    sealed = tonumber(saved[7] or 0), queued = tonumber(saved[8] or 0),
    once = saved[9] or '', credits = tonumber(saved[10] or -1),
    prepared = false, remembers = false,
    changes = { 'seq', false, 'last', false }, -- what is to be saved of it; field, value, …
  }
  topics[name] = topic
  return topic
end

local function set(topic, field, value)
  topic[field] = value
  local changes = topic.changes
  changes[#changes + 1] = field
  changes[#changes + 1] = type(value) == 'number' and int(value) or value
end

-- The first write of this call to a topic: does its history go on, or may a seq be used twice?
local function prepare(topic, complete)
  if topic.missing then
    redis.call('DEL', log_key(topic), state_key(topic))
    set(topic, 'epoch', EPOCH)
  elseif SERVER ~= '' and topic.server ~= '' and topic.server ~= SERVER then
    set(topic, 'epoch', EPOCH)
  end
  if topic.seq == 0 then set(topic, 'complete', complete and '1' or '0') end
  if SERVER ~= '' and topic.server ~= SERVER then set(topic, 'server', SERVER) end
  topic.prepared = true
end

-- Append one envelope to one topic and publish it. `body` is the envelope from "key" on.
local function write(topic, body, complete)
  if not topic.prepared then prepare(topic, complete) end
  topic.seq = topic.seq + 1
  checks = checks + 1
  local seq = int(topic.seq)
  local check = string.format('%08x', (SEED + checks * 2654435761) % 4294967296)
  local last = topic.epoch .. '-' .. seq .. '-' .. check
  topic.changes[2], topic.changes[4] = seq, last
  local envelope = '{"id":"' .. last .. '","seq":' .. seq .. ',"topic":' .. cjson.encode(topic.name) .. ',' .. body
  if topic.seq > MAX_EVENTS then
    redis.call('XADD', log_key(topic), 'MAXLEN', '~', MAX_EVENTS, seq .. '-0', 'e', envelope)
  else
    redis.call('XADD', log_key(topic), seq .. '-0', 'e', envelope)
  end
  redis.call('PUBLISH', NAMESPACE .. ':events:' .. topic.name, envelope)
  return envelope
end

local function keep(topic, field, envelope)
  redis.call('HSET', state_key(topic), field, envelope)
  topic.remembers = true
end

local function save_one(topic)
  local renew = NOW - topic.renewed > RENEW
  if renew then set(topic, 'renewed', NOW) end
  redis.call('HSET', topic.key, unpack(topic.changes))
  if renew then
    redis.call('PEXPIRE', topic.key, KEEP + RENEW)
    redis.call('PEXPIRE', log_key(topic), KEEP + RENEW)
  end
  if topic.remembers then redis.call('PEXPIRE', state_key(topic), KEEP + RENEW) end
end

local function save()
  for _, topic in pairs(topics) do
    if topic.changes[2] then save_one(topic) end -- something was written
  end
end

-- Run `work` and save the topics even when it fails half way: an entry in the log whose seq was not
-- saved would refuse every later one.
local function finish(work)
  local ok, answer = pcall(work)
  save()
  if not ok then error(answer) end
  return answer
end

-- May an event of this run be appended? nil if so, else why not.
local function refused(job, run, kind, mark)
  if run < job.run then return 'fenced' end
  if run > job.run then return nil end
  if kind == 'end' then return job.sealed == run and 'duplicate' or nil end
  if kind == 'queued' and job.queued == run then return 'duplicate' end
  if kind == 'once' and job.once == int(run) .. ':' .. mark then return 'duplicate' end
  if kind == 'n' and tonumber(mark) <= job.number then return 'duplicate' end
  if job.sealed == run then return 'sealed' end
  return nil
end

local function note(job, run, kind, mark)
  if run > job.run then
    set(job, 'run', run)
    set(job, 'number', 0)
  end
  if kind == 'end' then set(job, 'sealed', run)
  elseif kind == 'queued' then set(job, 'queued', run)
  elseif kind == 'once' then set(job, 'once', int(run) .. ':' .. mark)
  elseif kind == 'n' then set(job, 'number', tonumber(mark)) end
end
