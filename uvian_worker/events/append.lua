-- Append events, all of them in order. After the three arguments of log.lua, eleven per event:
-- kind, job id, run, mark, first topic, second topic, effect, field, offset, text, body.
-- Answers per event: appended, duplicate, fenced, sealed or mismatch.

local WIDTH = 11

local function text_key(message)
  return NAMESPACE .. ':text:' .. message
end

-- The text so far is one string per message; its length is what a delta's offset must equal.
local function write_text(effect, message, text)
  local key = text_key(message)
  if effect == 'delta' then
    if redis.call('APPEND', key, text) == #text then redis.call('PEXPIRE', key, KEEP) end
  elseif effect == 'text' then
    redis.call('SET', key, text, 'PX', KEEP)
  else
    redis.call('DEL', key)
  end
end

local function keep_state(topic, effect, field, envelope)
  if effect == 'begin' or effect == 'keep' then
    keep(topic, field, envelope)
  elseif effect == 'start' then
    keep(topic, 'message:' .. field, envelope)
  elseif effect == 'text' then
    -- Its start may be lost; a new reader gets the text all the same.
    redis.call('HSETNX', state_key(topic), 'message:' .. field, '')
    topic.remembers = true
  elseif effect == 'drop' or effect == 'done' then
    redis.call('HDEL', state_key(topic), 'message:' .. field, 'answer:' .. field)
    -- A new reader of a job finds the answer here; a conversation's reads what is complete in the rows.
    if effect == 'done' and string.sub(topic.name, 1, 4) == 'job:' then
      keep(topic, 'answer:' .. field, envelope)
    end
  end
end

local function append_to(name, effect, field, body, complete)
  local topic = open(name)
  local envelope = write(topic, body, complete)
  -- A user's topic has no state: the rows are.
  if effect ~= '' and string.sub(name, 1, 5) ~= 'user:' then keep_state(topic, effect, field, envelope) end
end

local function append_credits(at)
  local topic = open(ARGV[at + 4])
  local version = tonumber(ARGV[at + 3])
  if version <= topic.credits then return 'duplicate' end
  set(topic, 'credits', version)
  write(topic, ARGV[at + 10], false)
  return 'appended'
end

local WRITES_TEXT = { delta = true, text = true, start = true, drop = true, done = true }

local function append(at)
  local kind, mark = ARGV[at], ARGV[at + 3]
  if kind == 'credits' then return append_credits(at) end
  local run = tonumber(ARGV[at + 2])
  local job = open('job:' .. ARGV[at + 1])
  local why = refused(job, run, kind, mark)
  if why then return why end
  local effect, field = ARGV[at + 6], ARGV[at + 7]
  -- A delta continues what its own run has written: after a flush, or beside a zombie, nobody's text is.
  if effect == 'delta'
    and (run ~= job.run or redis.call('STRLEN', text_key(field)) ~= tonumber(ARGV[at + 8])) then
    return 'mismatch'
  end
  note(job, run, kind, mark)
  local complete = effect == 'begin' and run == 1
  for index = at + 4, at + 5 do
    if ARGV[index] ~= '' then append_to(ARGV[index], effect, field, ARGV[at + 10], complete) end
  end
  if WRITES_TEXT[effect] then write_text(effect, field, ARGV[at + 9]) end
  return 'appended'
end

return finish(function()
  local answers = {}
  for at = 4, #ARGV, WIDTH do answers[#answers + 1] = append(at) end
  return answers
end)
