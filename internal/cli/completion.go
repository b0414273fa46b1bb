// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

const (
	// completionTime is how long a shell waits for what may come next, of which mostCompletions are of use.
	completionTime  = 3 * time.Second
	mostCompletions = 500
)

// Kinds whose names are completed.
var (
	gatewayV1       = schema.GroupVersion{Group: gwv1.GroupName, Version: "v1"}
	kindPods        = corev1.SchemeGroupVersion.WithKind("Pod")
	kindServices    = corev1.SchemeGroupVersion.WithKind("Service")
	kindNamespaces  = corev1.SchemeGroupVersion.WithKind("Namespace")
	kindAccounts    = corev1.SchemeGroupVersion.WithKind("ServiceAccount")
	kindDeployments = appsv1.SchemeGroupVersion.WithKind("Deployment")
	kindGateways    = gatewayV1.WithKind("Gateway")
	kindHTTPRoutes  = gatewayV1.WithKind("HTTPRoute")
	kindGRPCRoutes  = gatewayV1.WithKind("GRPCRoute")
)

// nothing is what a shell gets where there is nothing to complete, or it could not be asked for.
func nothing() ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// namesOf lists the names of kinds in the namespace that was asked for, with a prefix; nothing if they can't be asked
// for. Only names are read.
func (c *connection) namesOf(cmd *cobra.Command, prefix string, kinds ...schema.GroupVersionKind) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	to, err := c.connect(ctx)
	if err != nil {
		return nil
	}
	return namesIn(ctx, to, prefix, kinds...)
}

func namesIn(ctx context.Context, c *cluster, prefix string, kinds ...schema.GroupVersionKind) (out []string) {
	for _, kind := range kinds {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		options := []client.ListOption{client.Limit(mostCompletions)}
		if kind != kindNamespaces {
			options = append(options, client.InNamespace(c.namespace))
		}
		if err := c.client.List(ctx, list, options...); err != nil {
			continue // a kind that isn't there, or that the user may not list
		}
		for _, o := range list.Items {
			out = append(out, prefix+o.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// completeNamespace completes flag -n.
func (c *connection) completeNamespace(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("namespace", // it fails where there is no such flag
		func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return c.namesOf(cmd, "", kindNamespaces), cobra.ShellCompDirectiveNoFileComp
		})
}

// completeFlags completes the context.
func (c *connection) completeFlags(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("context",
		func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			raw, err := c.config().ToRawKubeConfigLoader().RawConfig()
			if err != nil {
				return nothing()
			}
			var out []string
			for name := range raw.Contexts {
				out = append(out, name)
			}
			slices.Sort(out)
			return out, cobra.ShellCompDirectiveNoFileComp
		})
}

// completeDescribe completes KIND and NAME.
func (o *describeOptions) complete(
	cmd *cobra.Command, given []string, begun string,
) ([]string, cobra.ShellCompDirective) {
	of := map[string][]schema.GroupVersionKind{
		describePod: {kindPods}, describeService: {kindServices}, describeRoute: {kindHTTPRoutes, kindGRPCRoutes},
	}
	kind, _, slash := strings.Cut(begun, "/")
	switch {
	case len(given) == 0 && slash:
		return o.conn.namesOf(cmd, kind+"/", of[described[strings.ToLower(kind)].kind]...), cobra.ShellCompDirectiveNoFileComp
	case len(given) == 0:
		return []string{describePod, describeService, describeRoute, "httproute", "grpcroute"},
			cobra.ShellCompDirectiveNoFileComp
	case len(given) == 1:
		return o.conn.namesOf(cmd, "", of[described[strings.ToLower(given[0])].kind]...), cobra.ShellCompDirectiveNoFileComp
	}
	return nothing()
}

// completeExplain completes SOURCE and DESTINATION.
func (o *explainOptions) complete(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	c, err := o.conn.connect(ctx)
	if err != nil || len(given) > 1 {
		return nothing()
	}
	in := c.namespace + "/"
	if len(given) == 0 {
		return slices.Concat([]string{"outside"}, namesIn(ctx, c, "sa/"+in, kindAccounts),
				namesIn(ctx, c, "pod/"+in, kindPods)),
			cobra.ShellCompDirectiveNoFileComp
	}
	return slices.Concat(namesIn(ctx, c, "service/"+in, kindServices), namesIn(ctx, c, "pod/"+in, kindPods)),
		cobra.ShellCompDirectiveNoFileComp
}

// completePod completes a pod, or what leads to one.
func (c *connection) completePod(
	cmd *cobra.Command, given []string, begun string,
) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nothing()
	}
	of := map[string]schema.GroupVersionKind{
		ofPod: kindPods, ofDeployment: kindDeployments, ofService: kindServices, ofGateway: kindGateways,
	}
	if kind, _, slash := strings.Cut(begun, "/"); slash {
		if gvk, known := of[leading[kind]]; known {
			return c.namesOf(cmd, kind+"/", gvk), cobra.ShellCompDirectiveNoFileComp
		}
		return nothing()
	}
	return append(c.namesOf(cmd, "", kindPods), "deploy/", "svc/", "gateway/"),
		cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}
