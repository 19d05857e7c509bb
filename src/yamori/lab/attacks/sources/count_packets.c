/* Counts the packets that the guest sends by a netfilter hook, and accepts them all. */
#include "guard.h"
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <net/net_namespace.h>

static unsigned long count;
module_param(count, ulong, 0400);
static unsigned long place;
module_param(place, ulong, 0400);

static unsigned int counted(void *private, struct sk_buff *packet, const struct nf_hook_state *state)
{
	count++;
	return NF_ACCEPT;
}

static const struct nf_hook_ops hook = {
	.hook = counted,
	.pf = NFPROTO_IPV4,
	.hooknum = NF_INET_LOCAL_OUT,
	.priority = NF_IP_PRI_LAST,
};

static int __init start(void)
{
	int error = lab_only();

	if (error)
		return error;
	place = (unsigned long)counted;
	return nf_register_net_hook(&init_net, &hook);
}

static void __exit stop(void)
{
	nf_unregister_net_hook(&init_net, &hook);
}

module_init(start);
module_exit(stop);
