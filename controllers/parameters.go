// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// classParameters finds the parameters that a GatewayClass names; nil if it names none. problem says what is wrong with
// the reference, for the user to mend.
func classParameters(
	ctx context.Context, c client.Reader, class *gwv1.GatewayClass,
) (p *v1alpha1.ProxyParameters, problem string, err error) {
	ref := class.Spec.ParametersRef
	switch {
	case ref == nil:
		return nil, "", nil
	case string(ref.Group) != v1alpha1.GroupVersion.Group || ref.Kind != v1alpha1.KindProxyParameters:
		return nil, wrongKind(string(ref.Group), string(ref.Kind)), nil
	case ref.Namespace == nil || *ref.Namespace == "":
		return nil, fmt.Sprintf("spec.parametersRef needs a namespace: %s is a namespaced kind",
			v1alpha1.KindProxyParameters), nil
	}
	return findParameters(ctx, c, client.ObjectKey{Namespace: string(*ref.Namespace), Name: ref.Name})
}

// gatewayParameters finds the parameters that a Gateway's infrastructure names; nil if it names none.
func gatewayParameters(
	ctx context.Context, c client.Reader, g *gwv1.Gateway,
) (p *v1alpha1.ProxyParameters, problem string, err error) {
	if g.Spec.Infrastructure == nil || g.Spec.Infrastructure.ParametersRef == nil {
		return nil, "", nil
	}
	ref := g.Spec.Infrastructure.ParametersRef
	if string(ref.Group) != v1alpha1.GroupVersion.Group || ref.Kind != v1alpha1.KindProxyParameters {
		return nil, wrongKind(string(ref.Group), string(ref.Kind)), nil
	}
	return findParameters(ctx, c, client.ObjectKey{Namespace: g.Namespace, Name: ref.Name})
}

func wrongKind(group, kind string) string {
	return fmt.Sprintf("parametersRef names a %s of group %q, but must name a %s of group %s",
		kind, group, v1alpha1.KindProxyParameters, v1alpha1.GroupVersion.Group)
}

func findParameters(
	ctx context.Context, c client.Reader, key client.ObjectKey,
) (*v1alpha1.ProxyParameters, string, error) {
	p := &v1alpha1.ProxyParameters{}
	err := c.Get(ctx, key, p)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Sprintf("parametersRef names %s %s, which does not exist", v1alpha1.KindProxyParameters, key), nil
	}
	if err != nil {
		return nil, "", err
	}
	return p, "", nil
}
