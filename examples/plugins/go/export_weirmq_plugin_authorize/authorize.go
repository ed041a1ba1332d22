// Package export_weirmq_plugin_authorize decides who may publish and subscribe. The generated code finds it by its
// name.
package export_weirmq_plugin_authorize

import (
	"fmt"

	"wit_component/policy"
	. "wit_component/weirmq_plugin_authorize"
)

const notAuthorized = 0x87

// Authorize decides by the templates of the policy.
func Authorize(identity Identity, action Action) Decision {
	templates, asked, verb := policy.Current.Subscribe, "", "subscribe to"
	switch action.Tag() {
	case Action_Publish:
		templates, asked, verb = policy.Current.Publish, action.Publish().Topic, "publish to"
	case Action_Subscribe:
		asked = action.Subscribe().Filter
	}
	if policy.Covers(templates, identity.Principal, identity.ClientId, asked) {
		return MakeDecisionAllow()
	}
	reason := fmt.Sprintf("no template lets '%s' %s '%s'", identity.Principal, verb, asked)
	return MakeDecisionDeny(Denial{ReasonCode: notAuthorized, Reason: reason})
}
