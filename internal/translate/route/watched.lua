-- What two scripts have in common between which somebody may change headers, but not all of them: the first one notes
-- what stays, and the second one looks whether it did. `notes` is the name under which one tells the other one, which
-- nobody between them can read or write.

local find, sub, lower, gsub, tonumber = string.find, string.sub, string.lower, string.gsub, tonumber
local pairs, ipairs, pcall, tostring, concat = pairs, ipairs, pcall, tostring, table.concat

local longest_name, more = 256, 256

-- Headers that say who calls, where a message ends, or what the proxy is to do: those of the sandbox, and more of who
-- calls. Some applications take an underscore for a hyphen.
local kept = {
  ["host"] = true, ["connection"] = true, ["content-length"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

local function spelled(header) return (gsub(lower(header), "_", "-")) end

local function keeps(header)
  if sub(header, 1, 1) == ":" then return true end
  local as = spelled(header)
  return kept[as] or find(as, "^x%-forwarded%-") or find(as, "^x%-envoy%-") or find(as, "^x%-fairway%-")
end

-- named tells whether the name of a header is one.
local function named(header) return #header <= longest_name and find(header, "^[%w!#$%%&'*+.^_`|~-]+$") end

local function judge(header, also)
  if keeps(header) or also and find(also, "," .. spelled(header) .. ",", 1, true) then return "stays" end
  return named(header) and "free" or "bad"
end

-- judged are names that judge was asked about, for most messages have the same ones; so many at most.
local judged, room = {}, 1024

local function judgement(header, also)
  if room == 0 then
    judged, room = {}, 1024
  end
  local by = judged[also or ""]
  if not by then
    by = {}
    judged[also or ""], room = by, room - 1
  end
  local it = judge(header, also)
  if #header <= longest_name then
    by[header], room = it, room - 1
  end
  return it
end

-- list is all headers: Envoy has none changed while some loop over them isn't at its end.
local function list(headers)
  local out = {}
  for k, v in pairs(headers) do out[#out + 1] = { k, v } end
  return out
end

local unreadable = "[%z\1-\8\10-\31\127]"

-- seen is what stays of headers, in one text: what does so for all, and besides those that `also` lists, but for one.
-- It has how many headers there are, how long they are together, and whether one of them has no name that can be one.
local function seen(handle, but, also)
  local out, n, m, long, bad = {}, 0, 0, 0, false
  local by = judged[also or ""]
  for k, v in pairs(handle:headers()) do
    n, long = n + 1, long + #k + #v
    local it = by and by[k] or judgement(k, also)
    if it == "bad" then
      bad = true
    elseif it == "stays" and k ~= but then
      out[m + 1], out[m + 2], out[m + 3], out[m + 4], out[m + 5] = #k, k, #v, ":", v
      m = m + 5
    end
  end
  return handle:base64Escape(concat(out)), n, long, bad
end

-- note what stays of a request, or an answer.
local function note(handle, of, but, also)
  local text, n, long = seen(handle, but, also)
  handle:streamInfo():dynamicMetadata():set(notes, of, n .. " " .. long .. " " .. text)
end

local function status(text)
  local n = find(text or "", "^%d%d%d$") and tonumber(text)
  return n and n >= 200 and n <= 599 and text
end

-- miswritten tells whether a value ends where it shouldn't, so that more than one header would come of it.
local function miswritten(handle)
  local it = false
  for _, v in pairs(handle:headers()) do it = it or find(v, unreadable) end
  return it and "it wrote a header that can't be one" or nil
end

-- wrong says what is wrong with what was made of headers since they were noted, but for values that are miswritten; nil
-- if nothing is. It tells whether there is more of them.
local function wrong(handle, noted, but, also)
  local _, _, most, was, before = find(noted or "", "^(%d+) (%d+) (%S*)$")
  local text, n, long, bad = seen(handle, but, also)
  if text ~= before then return "it changed a header that is not for it to change" end
  if n > most + more then return "it added too many headers" end
  if bad then return "it wrote a header that can't be one" end
  return nil, n ~= tonumber(most) or long ~= tonumber(was)
end

