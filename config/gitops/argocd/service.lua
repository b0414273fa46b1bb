-- Health of Services: Argo CD's own look at load balancers, and whether connections reach the Service that the mesh leads
-- through a waypoint (condition fairway.dev/WaypointBound). Where that waypoint is missing, they are refused.

local status = obj.status or {}
for _, c in ipairs(status.conditions or {}) do
  if c.type == "fairway.dev/WaypointBound" and c.status ~= "True" then
    if c.reason == "WaypointPending" then
      return { status = "Progressing", message = c.message }
    end
    return { status = "Degraded", message = c.message }
  end
end
if obj.spec ~= nil and obj.spec.type == "LoadBalancer" then
  local balancer = status.loadBalancer or {}
  if balancer.ingress == nil or #balancer.ingress == 0 then
    return { status = "Progressing", message = "Waiting for the load balancer's address" }
  end
end
return { status = "Healthy", message = "" }
