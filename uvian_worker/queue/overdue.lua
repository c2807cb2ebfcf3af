-- Which ids were taken out of the queue and not claimed in time. It comes after arq.lua.
-- ARGV: namespace, milliseconds that a claim may take, how many ids at most.
--
-- A worker killed between arq's pick and our first act leaves its id in the queue, locked. Such an id
-- is added to the claiming set when it is first seen; a live pick leaves both within milliseconds.

local QUEUE, CLAIMING = ARGV[1] .. ':queue', ARGV[1] .. ':claiming'
if redis.call('EXISTS', QUEUE, CLAIMING) == 0 then return {} end

local CLOCK = redis.call('TIME')
local NOW = tonumber(CLOCK[1]) * 1000 + math.floor(tonumber(CLOCK[2]) / 1000)
local HEAD = 200 -- picks happen at the head of the queue

local function int(number)
  return string.format('%.0f', number)
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', QUEUE, '-inf', int(NOW), 'LIMIT', 0, HEAD)) do
  if arq_has_locked(id) then redis.call('ZADD', CLAIMING, 'NX', int(NOW), id) end
end
return redis.call('ZRANGEBYSCORE', CLAIMING, '-inf', int(NOW - tonumber(ARGV[2])), 'LIMIT', 0, ARGV[3])
