// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Protocols of a waypoint's listener. The Gateway API has no name for mTLS without a terminated protocol in it, so ours
// has a domain.
const (
	ProtocolMTLS gwv1.ProtocolType = names.ProtocolMTLS
	// protocolHBONE and protocolHBONEDomain are what Gateways say that were written for earlier versions, or for other
	// meshes. They mean ProtocolMTLS.
	protocolHBONE       gwv1.ProtocolType = "HBONE"
	protocolHBONEDomain gwv1.ProtocolType = names.Domain + "/HBONE"
)

// IsWaypoint tells whether a Gateway asks for a waypoint of ours. class is the object that its class name stands for,
// nil if there is none: the operator makes the class again, and what serves goes on serving meanwhile.
func IsWaypoint(g *gwv1.Gateway, class *gwv1.GatewayClass) bool {
	return g.Spec.GatewayClassName == names.WaypointClass &&
		(class == nil || class.Spec.ControllerName == names.GatewayController)
}

// JudgeWaypoint says why a Gateway of our class can't be a waypoint; nil if it can. It is the one judge of a Gateway's
// spec: for the condition Accepted, for what is deployed, and for what Services may be bound to.
func JudgeWaypoint(g *gwv1.Gateway) *Verdict {
	switch {
	case len(validation.IsDNS1035Label(g.Name)) > 0:
		return &Verdict{
			Reason: string(gwv1.GatewayReasonInvalid),
			Message: fmt.Sprintf("A waypoint's Service can't have the Gateway's name: use at most %d "+
				"lower-case letters, digits and dashes, beginning with a letter", validation.DNS1035LabelMaxLength),
		}
	case len(g.Spec.Addresses) > 0:
		return &Verdict{
			Reason:  string(gwv1.GatewayReasonUnsupportedAddress),
			Message: "A waypoint doesn't support spec.addresses: remove it",
		}
	}
	served := false
	for _, v := range JudgeListeners(g) {
		if v != nil {
			return listenersNotValid()
		}
		served = true
	}
	if !served {
		return listenersNotValid()
	}
	return nil
}

func listenersNotValid() *Verdict {
	return &Verdict{
		Reason: string(gwv1.GatewayReasonListenersNotValid),
		Message: fmt.Sprintf("A waypoint needs exactly one listener, with protocol %s and port %d: "+
			"see the conditions of the listeners", ProtocolMTLS, names.PortMTLS),
	}
}

// JudgeListeners says of each listener why it can't be served; nil if it can. The first good one is; routes attach to
// Services, never to it.
func JudgeListeners(g *gwv1.Gateway) []*Verdict {
	out := make([]*Verdict, len(g.Spec.Listeners))
	served := false
	for i := range g.Spec.Listeners {
		if out[i] = judgeListener(&g.Spec.Listeners[i], served); out[i] == nil {
			served = true
		}
	}
	return out
}

func judgeListener(l *gwv1.Listener, served bool) *Verdict {
	switch {
	case !slices.Contains([]gwv1.ProtocolType{ProtocolMTLS, protocolHBONE, protocolHBONEDomain}, l.Protocol):
		return &Verdict{
			Reason:  string(gwv1.ListenerReasonUnsupportedProtocol),
			Message: fmt.Sprintf("A waypoint doesn't support protocol %s: use %s", l.Protocol, ProtocolMTLS),
		}
	case l.Port != names.PortMTLS:
		return &Verdict{
			Reason:  string(gwv1.ListenerReasonPortUnavailable),
			Message: fmt.Sprintf("A waypoint can only listen on port %d", names.PortMTLS),
		}
	case served:
		return &Verdict{
			Reason:  string(gwv1.ListenerReasonPortUnavailable),
			Message: "Another listener already uses the port: remove one of them",
		}
	}
	return nil
}
