// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The address that a connection leads to is put together of what the pod's guard says of the caller and of the target.
// The guard says nothing to let in, so that whatever else it says, or if it can't be asked, there is no address, and
// nowhere remains, which was set first.

// unguarded is the verdict of who has proved who it is where the operator hasn't said yet what guards the pod.
const unguarded = "what guards it is not known yet"

// guardPatience is how long a pod's listeners wait for its guard. A proxy that listens beside the one before would
// close what it takes without, which that one lets in; and a pod must start though the operator is away.
const guardPatience = 5 * time.Second

// nowhere is an address of a family that the kernel never connects TCP to, and refuses at once without a look at routes
// or rules: it is no single host's. Without any, cluster direct would take the connection's own.
func nowhere(family netip.Addr) string {
	if family.Is6() {
		return "[ff02::1]:1"
	}
	return "255.255.255.255:1"
}

// guarded leads callers to a target when they have proved who they are; in plain text, when they come.
func guarded(p Pod, family netip.Addr, target string) []*listenerv3.Filter {
	return []*listenerv3.Filter{
		envoy.SetFilterStateOfPeer([]*statev3.FilterStateValue{
			podNetns(p, envoy.SharedOnce), thePod(p),
			envoy.FilterState(envoy.FilterStateOriginalDst, "", nowhere(family), envoy.SharedNot),
			envoy.FilterState(names.FilterStateTarget, envoy.FactoryString, target, envoy.SharedNot),
			says(envoy.Unproved),
		}, []*statev3.FilterStateValue{says(unguarded)}),
		envoy.NetworkFilterByECDSOr(names.PodAuthorization(p.Namespace, p.Name), &netstatev3.Config{}, guardPatience),
		envoy.SetFilterStateOfPeer(nil, []*statev3.FilterStateValue{envoy.FilterState(envoy.FilterStateOriginalDst, "",
			envoy.PlainState(names.FilterStateVerdict)+envoy.PlainState(names.FilterStateTarget), envoy.SharedNot)}),
	}
}

func says(verdict string) *statev3.FilterStateValue {
	return envoy.FilterState(names.FilterStateVerdict, envoy.FactoryString, envoy.Literal(verdict), envoy.SharedNot)
}

// thePod says for which pod it is what the agent is told of.
func thePod(p Pod) *statev3.FilterStateValue {
	return envoy.FilterState(names.FilterStatePod, envoy.FactoryString, envoy.Literal(p.Namespace+"/"+p.Name),
		envoy.SharedNot)
}

// guardedLog has the verdict in each line, and counts who is refused, or would be.
func guardedLog(p Pod, fields map[string]string) []*accesslogv3.AccessLog {
	fields["verdict"] = envoy.PlainState(names.FilterStateVerdict)
	fields["dryrun"] = envoy.PlainState(names.FilterStateDryRun)
	return append([]*accesslogv3.AccessLog{
		envoy.StdoutLog(logFields(p, fields), envoy.EitherOf(envoy.Flagged(), envoy.Tried())),
	}, envoy.CountRefused("destination_namespace", envoy.Literal(p.Namespace))...)
}
