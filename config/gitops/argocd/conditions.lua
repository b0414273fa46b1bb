-- Health of kinds whose status has one list of conditions: the Mesh, and Gateways of any class. Conditions of a waypoint's
-- Gateway, and of the Mesh, say by Stalled that nothing gets better by itself
-- (api/v1alpha1/conditions.go). Gateways of other classes have no such condition: what counts is what Argo CD's own script
-- looks at.

local sums = { Ready = true, Programmed = true }
local mistakes = { Accepted = true, ResolvedRefs = true }

local status = obj.status or {}
local waiting = nil

local function look(list, where)
  for _, c in ipairs(list or {}) do
    local message = where .. c.type .. ": " .. (c.message or c.reason or "")
    if c.type == "Stalled" and c.status == "True" then
      return where .. (c.message or c.reason or "")
    elseif mistakes[c.type] and c.status == "False" then
      return message
    elseif waiting == nil and sums[c.type] and c.status ~= "True" then
      waiting = message
    end
  end
  return nil
end

if status.observedGeneration ~= nil and obj.metadata.generation ~= nil and
    status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The last change has not been seen yet" }
end
local wrong = look(status.conditions, "")
for _, l in ipairs(status.listeners or {}) do
  wrong = wrong or look(l.conditions, "Listener " .. (l.name or "") .. ": ")
end
if wrong ~= nil then
  return { status = "Degraded", message = wrong }
end
if waiting ~= nil then
  return { status = "Progressing", message = waiting }
end
if status.conditions == nil or #status.conditions == 0 then
  return { status = "Progressing", message = "No controller has said anything of it yet" }
end
return { status = "Healthy", message = "" }
