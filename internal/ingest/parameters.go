// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// headerLimits are those of the Gateway's parameters, else of its class's, else the default. Whether a reference is
// good is judged, and said, where the waypoint is deployed; one that is not counts for nothing here.
func (i *Ingest) headerLimits(c *memo.Ctx, gateway cluster.Key) model.HeaderLimits {
	var limits v1alpha1.HeaderLimits
	if g := i.gateway(c, gateway); g != nil {
		class, _ := i.store.GatewayClasses.Get(c, cluster.Key{Name: string(g.Spec.GatewayClassName)})
		for _, key := range []cluster.Key{gatewayParameters(g), classParameters(class)} {
			if p, ok := i.store.Parameters.Get(c, key); ok && p.Spec.HeaderLimits != nil {
				limits = *p.Spec.HeaderLimits
				break
			}
		}
	}
	limits.SetDefaults()
	//nolint:gosec // the schema has bounds for both
	return model.HeaderLimits{KiB: uint32(limits.SizeKiB), Count: uint32(limits.Count)}
}

// gatewayParameters and classParameters name ProxyParameters; the zero key, which nothing has, for none.
func gatewayParameters(g *gwv1.Gateway) cluster.Key {
	if g.Spec.Infrastructure == nil || g.Spec.Infrastructure.ParametersRef == nil {
		return cluster.Key{}
	}
	ref := g.Spec.Infrastructure.ParametersRef
	if string(ref.Group) != v1alpha1.GroupVersion.Group || ref.Kind != v1alpha1.KindProxyParameters {
		return cluster.Key{}
	}
	return cluster.Key{Namespace: g.Namespace, Name: ref.Name}
}

func classParameters(class *gwv1.GatewayClass) cluster.Key {
	if class == nil || class.Spec.ParametersRef == nil {
		return cluster.Key{}
	}
	ref := class.Spec.ParametersRef
	if string(ref.Group) != v1alpha1.GroupVersion.Group || ref.Kind != v1alpha1.KindProxyParameters ||
		ref.Namespace == nil {
		return cluster.Key{}
	}
	return cluster.Key{Namespace: string(*ref.Namespace), Name: ref.Name}
}
