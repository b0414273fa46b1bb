// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// HTTPFilterByECDS is an HTTP filter whose configuration, of the type of m, is the resource of its name. It changes
// without its listener: the next request on any connection meets the new one.
func HTTPFilterByECDS(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: byECDS(m)}}
}

// NetworkFilterByECDS is likewise a network filter. Connections keep the one that they began with, so it is for what
// need not hold for them: for what must, a listener that changes and drains is right.
func NetworkFilterByECDS(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: byECDS(m)}}
}

// NetworkFilterByECDSOr is a network filter by ECDS that has a configuration where the resource of its name doesn't
// come within patience; until then, the listener is not taken into use. Without patience it doesn't wait. One that
// replaces another has what that one had. What comes behind the filter must refuse who passes it with that.
func NetworkFilterByECDSOr(name string, until proto.Message, patience time.Duration) *listenerv3.Filter {
	source := byECDS(until)
	source.DefaultConfig, source.ApplyDefaultConfigWithoutWarming = Any(until), patience == 0
	source.ConfigSource.InitialFetchTimeout = Duration(patience)
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: source}}
}

// byECDS fails closed. A listener is not taken into use before the configuration is there, however long that takes; the
// one that it replaces serves until then. Where there is none all the same, for the first one was rejected, the filter
// refuses: that is what Envoy does without a default.
func byECDS(m proto.Message) *corev3.ExtensionConfigSource {
	source := ADS(0)
	source.InitialFetchTimeout = durationpb.New(0) // for ever
	return &corev3.ExtensionConfigSource{
		ConfigSource: source,
		TypeUrls:     []string{resource.APITypePrefix + string(m.ProtoReflect().Descriptor().FullName())},
	}
}
