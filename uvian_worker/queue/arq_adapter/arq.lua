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
