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

-- All that our scripts know of arq. It comes before the part that uses it; ARGV[1] is the namespace.

local ARQ = ARGV[1] .. ':arq:' -- before arq's own names, so that each installation has keys of its own
local ARQ_PAYLOAD_TIME = 7 * 24 * 60 * 60 * 1000

local function arq_int(number)
  return string.format('%.0f', number)
end

-- Write what arq reads of a run that is due in `delay` milliseconds, and remove what is left of an
-- earlier try. True if the id was locked: a worker killed after its pick leaves the lock for the longest
-- timeout of all functions.
local function arq_offer(id, job_id, run, now, delay)
  -- `t`, `f`, `a`, `k` and `et` are arq's own names.
  local payload = '{"t":null,"f":"run_job","a":[' .. cjson.encode(job_id) .. ',' .. arq_int(run)
    .. '],"k":{},"et":' .. arq_int(now) .. '}'
  redis.call('SET', ARQ .. 'job:' .. id, payload, 'PX', arq_int(math.max(delay, 0) + ARQ_PAYLOAD_TIME))
  redis.call('DEL', ARQ .. 'retry:' .. id)
  return redis.call('DEL', ARQ .. 'in-progress:' .. id) == 1
end

-- Whether a worker has locked this id: it is picking it, or was killed after its pick.
local function arq_has_locked(id)
  return redis.call('EXISTS', ARQ .. 'in-progress:' .. id) == 1
end

-- Take an id before arq does; false if arq is picking it. arq would report a picked job whose payload
-- is gone as expired: what is picked stays. The lock breaks a pick that is half done, because arq
-- watches this key.
local function arq_leaves(id)
  if not redis.call('SET', ARQ .. 'in-progress:' .. id, '1', 'NX', 'PX', 1000) then return false end
  redis.call('DEL', ARQ .. 'job:' .. id, ARQ .. 'retry:' .. id)
  return true
end

-- Put jobs into the queue; a second call with the same jobs does nothing. It comes after log.lua and
-- arq.lua; the three arguments of log.lua are followed by eight for each job:
-- job id, run, user id, job type, priority (seconds of head start), run at (ms since 1970, or ""), attempt,
-- reason (a JSON object: how the last run ended; or "").
-- Answers for each job: queued, waiting (it was in the queue), claiming (a worker has just taken it),
-- fenced (a later run was seen) or sealed (this run has ended).

local WIDTH = 8
local QUEUE, CLAIMING, WAKE = NAMESPACE .. ':queue', NAMESPACE .. ':claiming', NAMESPACE .. ':wake'
local TOKENS = 64 -- no more wake-up tokens need to wait: a worker that takes several jobs passes one on
local CLAIM_TIME = 5000
local SOON = 1000 -- idle workers look this often anyway
local tokens = 0

local function iso(ms)
  local days = math.floor(ms / 86400000)
  local rest = ms - days * 86400000
  -- Civil date from days since 1970, as in Howard Hinnant's "chrono-compatible low-level date algorithms".
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04.0f-%02.0f-%02.0fT%02.0f:%02.0f:%02.0f.%03.0fZ', year, month, day,
    math.floor(rest / 3600000), math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000)
end

-- A job that is due has its head start; one that is not yet due gets none.
local function score(priority, run_at)
  if run_at > NOW then return run_at end
  return math.max(1, (run_at > 0 and run_at or NOW) - priority * 1000)
end

local function announce(at, job, run, run_at)
  if job.queued == run then return end
  local id, user = ARGV[at], ARGV[at + 2]
  local number = int(run)
  local type = run == 1 and 'job.queued' or 'job.requeued'
  local body = '"key":' .. cjson.encode(id .. ':' .. number .. ':queued') .. ',"type":"' .. type
    .. '","at":"' .. iso(NOW) .. '","job_id":' .. cjson.encode(id) .. ',"run":' .. number
    .. ',"attempt":' .. ARGV[at + 6] .. ',"data":{"job_type":' .. cjson.encode(ARGV[at + 3])
    .. ',"priority":' .. ARGV[at + 4] .. ',"run_at":' .. (run_at > 0 and '"' .. iso(run_at) .. '"' or 'null')
    .. (run == 1 and '' or ',"reason":' .. (ARGV[at + 7] == '' and 'null' or ARGV[at + 7])) .. '}}'
  note(job, run, 'queued', '')
  keep(job, 'status', write(job, body, run == 1))
  write(open('user:' .. user), body, false)
end

local function dispatch(at)
  local run, run_at = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 5]) or 0
  local job = open('job:' .. ARGV[at])
  if run < job.run then return 'fenced' end
  if job.sealed == run then return 'sealed' end
  local id = ARGV[at] .. ':' .. int(run)
  local taken = redis.call('ZSCORE', CLAIMING, id)
  if taken and NOW - tonumber(taken) < CLAIM_TIME then return 'claiming' end
  if taken then redis.call('ZREM', CLAIMING, id) end
  local was_locked = arq_offer(id, ARGV[at], run, NOW, run_at - NOW)
  local added = redis.call('ZADD', QUEUE, 'NX', int(score(tonumber(ARGV[at + 4]), run_at)), id)
  if (added == 1 or was_locked) and run_at - NOW < SOON then tokens = tokens + 1 end
  if added == 0 then return 'waiting' end
  announce(at, job, run, run_at)
  return 'queued'
end

return finish(function()
  local answers = {}
  for at = 4, #ARGV, WIDTH do answers[#answers + 1] = dispatch(at) end
  for _ = 1, math.min(tokens, TOKENS) do redis.call('LPUSH', WAKE, '1') end
  if tokens > 0 then redis.call('LTRIM', WAKE, 0, TOKENS - 1) end
  return answers
end)
