// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"os"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// deleteTimeout is how long the suite waits until a namespace is gone, instead of 30 s. Kubernetes looks what is left of
// one after half the grace period of its pods: 20 s and more with waypoints, which may drain for 30 s, and twice that
// where something was left.
const deleteTimeout = 3 * time.Minute

// TestConformance claims both mesh profiles and every extended mesh feature, and exempts itself from nothing. The
// suite's own flags apply, such as -report-output and -version.
func TestConformance(t *testing.T) {
	if os.Getenv("KUBECONFIG") == "" {
		t.Skip("KUBECONFIG is not set: run make conformance, or set it to a cluster that Fairway is deployed to")
	}
	opts := conformance.DefaultOptions(t)
	opts.ConformanceProfiles = []suite.ConformanceProfileName{
		suite.MeshHTTPConformanceProfileName,
		suite.MeshGRPCConformanceProfileName,
	}
	opts.SupportedFeatures = sets.List(features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures,
		features.HTTPRouteCoreFeatures, features.GRPCRouteCoreFeatures).Insert(httpRouteFeatures()...))
	opts.NamespaceLabels = namespaceLabels
	opts.TimeoutConfig.DeleteTimeout = deleteTimeout
	opts.Implementation = confv1.Implementation{
		Organization: "fairway-mesh",
		Project:      "fairway",
		URL:          "https://github.com/fairway-mesh/fairway",
		Version:      cmp.Or(opts.Implementation.Version, "v0.1.0"),
		Contact:      []string{"https://github.com/fairway-mesh/fairway/issues"},
	}
	startWaypoints(t, opts.Client)
	conformance.RunConformanceWithOptions(t, opts)
}

// httpRouteFeatures are the extended HTTPRoute features that the suite's mesh tests ask for besides the mesh's own.
func httpRouteFeatures() []features.FeatureName {
	return []features.FeatureName{
		features.SupportHTTPRouteParentRefPort,
		features.SupportHTTPRouteResponseHeaderModification,
		features.SupportHTTPRoute303RedirectStatusCode,
		features.SupportHTTPRoute307RedirectStatusCode,
		features.SupportHTTPRoute308RedirectStatusCode,
	}
}
