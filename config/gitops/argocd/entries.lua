-- Health of kinds whose status has an entry for each parent or ancestor: routes, policies, HTTPExtensions, XBackends.
-- Of the mesh's own entries each condition counts, and its reason tells what passes by itself
-- (api/v1alpha1/conditions_routing.go). Of others' entries it is what Argo CD's own script for routes looks at.

local mesh = "fairway.dev/mesh-controller"

-- Reasons of conditions that are False only for now: proxies are starting, or haven't answered yet.
local passing = { Pending = true, NoProxies = true }

-- Reasons of conditions that are False because somebody wants it so.
local wanted = { Overridden = true, DryRun = true, NotUsed = true }

-- Conditions that are bad while they are True.
local bad = { ["PartiallyInvalid"] = true, ["fairway.dev/StatusFull"] = true }

-- What of others' entries is asked for, and what a False there means.
local others = { Accepted = "Degraded", ResolvedRefs = "Degraded", Programmed = "Progressing" }

local function verdict(entry, c)
  if entry.controllerName ~= mesh then
    if c.status == "False" or c.type == "Programmed" and c.status ~= "True" then
      return others[c.type]
    end
    return nil
  end
  if bad[c.type] then
    return c.status == "True" and "Degraded" or nil
  end
  if c.status == "True" or c.status == "False" and wanted[c.reason] then
    return nil
  end
  if c.status == "Unknown" or passing[c.reason] then
    return "Progressing"
  end
  return "Degraded"
end

-- An entry without conditions, or with one of an earlier generation, says nothing yet.
local function observed(entry)
  if entry.conditions == nil or #entry.conditions == 0 then
    return false
  end
  for _, c in ipairs(entry.conditions) do
    if c.observedGeneration ~= nil and obj.metadata.generation ~= nil and
        c.observedGeneration ~= obj.metadata.generation then
      return false
    end
  end
  return true
end

local entries = {}
if obj.status ~= nil then
  entries = obj.status.parents or obj.status.ancestors or {}
end

local seen, waiting = 0, nil
for _, entry in ipairs(entries) do
  if observed(entry) then
    seen = seen + 1
    local ref = entry.parentRef or entry.ancestorRef or {}
    for _, c in ipairs(entry.conditions) do
      local health = verdict(entry, c)
      local message = (ref.kind or "") .. " " .. (ref.name or "") .. ": " .. c.type .. ": " .. (c.message or c.reason or "")
      if health == "Degraded" then
        return { status = health, message = message }
      elseif health == "Progressing" and waiting == nil then
        waiting = message
      end
    end
  end
end
if waiting ~= nil then
  return { status = "Progressing", message = waiting }
end
if seen == 0 then
  return { status = "Progressing", message = "No controller has said anything of it yet" }
end
return { status = "Healthy", message = "In force for all of " .. seen }
