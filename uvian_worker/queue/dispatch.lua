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
